"""A kept interpreter: a process that waits for steps and forks itself for each step that continues it.

A checkpoint is such a process. For each step it receives the code, a socket and a pipe. Its child runs the code and
reports on the socket. If the step ended well, the child waits on that socket as the new checkpoint. A checkpoint runs
no further code itself, so siblings see nothing of each other. A step that leaves a file open or memory shared is not
kept; it runs again in the process of each step that continues it.

Imports only the standard library. A step can patch any module in its process, so the functions that are needed after a
step are bound to private names at import. A step that patches the rest breaks only its own trajectory.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import random
import resource
import shutil
import signal
import socket
import struct
import sys
import time
import types
from contextlib import suppress

from sandbox.inside.errors import describe_error
from sandbox.inside.fast_path.plain import encode as _encode
from sandbox.inside.guard import Forbidden, Guard
from sandbox.inside.isolation import die_with_parent

HEADER = struct.Struct("!I")
MAX_MESSAGE_BYTES = 2**28
MAX_VARIABLES_BYTES = 2**20  # as JSON; the fast path takes no more
MAX_ERROR_CHARS = 2000
THREAD_LOOKS, THREAD_SECONDS = 50, 0.001
_getstate, _setstate = random.getstate, random.setstate
_listdir, _getrusage, _len, _type = os.listdir, resource.getrusage, len, type
_getrlimit, _setrlimit, _setpgid, _dup2, _close = resource.getrlimit, resource.setrlimit, os.setpgid, os.dup2, os.close
_open, _chdir, _mkdir, _Socket = os.open, os.chdir, os.mkdir, socket.socket
_islink, _isdir, _symlink, _readlink = os.path.islink, os.path.isdir, os.symlink, os.readlink
_copy_file, _copy_mode = shutil.copy2, shutil.copystat
_fstat, _getcwd, _read, _sleep, _clock = os.fstat, os.getcwd, os.read, time.sleep, time.perf_counter
_rename, _realpath = os.rename, os.path.realpath
_send_fds, _recv_fds = socket.send_fds, socket.recv_fds
_dumps, _loads, _fork, _exit, _signal = json.dumps, json.loads, os.fork, os._exit, signal.signal
_compile, _exec, _eval, _parse, _repr = builtins.compile, builtins.exec, builtins.eval, ast.parse, builtins.repr


def send(channel: socket.socket, message: dict, descriptors: tuple[int, ...] = ()) -> None:
    """Send one message as JSON, and file descriptors with it."""
    data = _dumps(message).encode()
    header = HEADER.pack(_len(data))
    if descriptors:
        _send_fds(channel, [header], list(descriptors))
    else:
        channel.sendall(header)
    channel.sendall(data)


def receive(channel: socket.socket, num_descriptors: int = 0) -> tuple[dict | None, list[int]]:
    """Return the next message and its descriptors. The message is None if the other end closed the channel."""
    header, descriptors, _, _ = _recv_fds(channel, HEADER.size, num_descriptors)
    if _len(header) < HEADER.size:
        return None, list(descriptors)
    data = bytearray()
    (size,) = HEADER.unpack(header)
    if size > MAX_MESSAGE_BYTES:  # only a step that wrote to the channel can cause this
        return None, list(descriptors)
    while _len(data) < size:
        chunk = channel.recv(min(size - _len(data), 1 << 20))
        if not chunk:
            return None, list(descriptors)
        data += chunk
    return _loads(data.decode()), list(descriptors)


class Interpreter:
    """The state that steps change: the namespace of `__main__` and the process itself."""

    def __init__(self, guard: Guard, *, max_echo_chars: int) -> None:
        self._guard = guard
        self._max_echo_chars = max_echo_chars
        self._num_steps = 0
        self._main = types.ModuleType("__main__")
        self._main.__dict__["__builtins__"] = builtins
        sys.modules["__main__"] = self._main
        self._stdout = sys.stdout = sys.__stdout__ = open(  # noqa: SIM115
            1, "w", buffering=1, encoding="utf-8", closefd=False
        )
        self._home, self._inside = _getcwd(), ""  # the trajectory's folder, and the working directory relative to it
        self._homes: list[str] = []  # all names of that folder so far; objects of earlier steps may hold an old name
        self._children = signal.SIG_DFL  # the steps' own handler of SIGCHLD
        self._channel: socket.socket
        self._inherited: set[int] = set()
        self._null = _fstat(0).st_rdev

    def serve(self, channel: socket.socket) -> None:
        """Wait for steps; never returns. Each fork continues in the same loop, so the stack does not grow."""
        self._channel = channel
        self._children = _signal(signal.SIGCHLD, signal.SIG_IGN) or signal.SIG_DFL  # the kernel reaps the forks
        self._inherited = self._descriptors()
        while True:
            request, descriptors = receive(self._channel, 2)
            if request is None:
                _exit(0)
            if not self._fork(request, descriptors):
                continue
            reply = self._run(request["codes"], request["folders"], descriptors[1])
            reply["token"] = request["token"]
            if request["plain"] and reply["status"] == "ok":
                reply["variables"] = self._variables()
            if reply["kept"]:
                die_with_parent(False)  # before the reply, because the server may stop this process after it
            with suppress(OSError):
                send(self._channel, reply)
            if not reply["kept"]:
                _exit(0)
            _silence()
            self._children = _signal(signal.SIGCHLD, signal.SIG_IGN) or signal.SIG_DFL

    def _fork(self, request: dict, descriptors: list[int]) -> bool:
        """Fork; return True in the child and False in the parent."""
        channel = _Socket(fileno=descriptors[0])
        random_state = _getstate()
        try:
            child = _fork()
        except OSError as error:
            send(channel, {"unstarted": str(error)})
            child = -1
        if child:
            channel.close()
            _close(descriptors[1])
            return False
        self._channel.close()
        self._channel = channel
        _setstate(random_state)  # `random` reseeds itself at a fork, but a step must continue its prefix
        _setpgid(0, 0)
        die_with_parent(True)  # in case the server dies while the step runs
        _, hard = _getrlimit(resource.RLIMIT_CPU)
        seconds = int(request["seconds"]) + 2
        _setrlimit(resource.RLIMIT_CPU, (seconds if hard == resource.RLIM_INFINITY else min(seconds, hard), hard))
        _signal(signal.SIGCHLD, self._children)
        send(channel, {"born": True})  # the kernel tells the server the sender's process id
        return True

    def _move(self, folder: str, *, forked: bool) -> dict:
        """Change to a new folder; return {} or, if that fails, the reply that says so.

        The first code of a fork gets a copy of its parent's folder, a later one the same folder under a new name.
        The server renames a kept interpreter's folder, so the copy starts from the current working directory.
        """
        try:
            if forked:
                here = _getcwd()
                home = here[: _len(here) - _len(self._inside)]
                if _listdir(home):
                    _copy(home, folder)
                else:
                    _mkdir(folder)
                _chdir(folder + self._inside)
            else:
                _rename(self._home, folder)
            self._home = _realpath(folder)
            self._homes.append(self._home)
            self._guard.keep_in(self._homes)
            os.environ["TMPDIR"] = os.environ["HOME"] = folder
            if "tempfile" in sys.modules:
                sys.modules["tempfile"].tempdir = None
        except Exception as exception:
            error = f"{_type(exception).__name__}: the files of the steps before could not be copied"
            return {"status": "exception", "error": error[:MAX_ERROR_CHARS], "echo": "", "memory_bytes": 0}
        return {}

    def _variables(self) -> dict | None:
        try:
            variables = _encode(self._main.__dict__)
            return variables if _len(_dumps(variables)) <= MAX_VARIABLES_BYTES else None
        except Exception:  # out of memory
            return None

    def _run(self, codes: list[str], folders: list[str], output: int) -> dict:
        """Run the codes in order, each in its own folder. All but the last restore a state.

        Stops at the first code that fails. Only the output of the last code is kept.
        """
        reply: dict = {}
        for i, (code, folder) in enumerate(zip(codes, folders, strict=True)):
            if i == _len(codes) - 1:
                _dup2(output, 1)
                _close(output)
                if i:
                    send(self._channel, {"last": True})
            self._num_steps += 1
            start = _clock()
            reply = self._move(folder, forked=i == 0) or self._step(code, f"<step {self._num_steps}>")
            reply["seconds"] = _clock() - start
            if reply["status"] != "ok":
                break
        return reply | {"kept": reply["status"] == "ok" and self._is_private()}

    def _is_private(self) -> bool:
        """Whether forks of this process would share no state: no open files and no shared memory.

        The working directory must also be inside the trajectory's folder, because a fork gets a copy of that folder.
        """
        try:
            if self._descriptors() != self._inherited or {_fstat(0).st_rdev, _fstat(2).st_rdev} != {self._null}:
                return False
            here = _getcwd()
        except OSError:
            return False
        if not f"{here}/".startswith(f"{self._home}/"):
            return False
        self._inside = here[_len(self._home) :]
        maps, data = _open("/proc/self/maps", os.O_RDONLY), b""
        while piece := _read(maps, 1 << 16):
            data += piece
        _close(maps)
        return b"w-s " not in data and b"wxs " not in data

    def _descriptors(self) -> set[int]:
        """The open file descriptors, without the standard streams and the channel."""
        own = {0, 1, 2, self._channel.fileno()}
        return {number for number in map(int, _listdir("/proc/self/fd")) if number not in own and _is_open(number)}

    def _step(self, code: str, filename: str) -> dict:
        self._guard.arm()
        try:
            echo = self._execute(code, filename)
            self._flush()
            status, error = "ok", ""
        except BaseException as exception:
            self._guard.disarm()
            echo, status = "", _status(exception)
            with suppress(BaseException):  # the step may have closed standard output
                self._flush()
            try:
                error = _describe(exception, code, filename)
            except BaseException:  # a hostile __str__, or out of memory
                error = _type(exception).__name__
        self._guard.disarm()
        if status == "ok" and _has_threads():  # a fork does not copy threads
            status, error = "forbidden", "Forbidden: the step left a thread running"
        if self._guard.violation:
            status, error = "forbidden", error or f"Forbidden: {self._guard.violation}"
        kilobytes = _getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "status": status, "error": error[:MAX_ERROR_CHARS], "echo": echo[: self._max_echo_chars],
            "memory_bytes": kilobytes * 1024,
        }  # fmt: skip

    def _execute(self, code: str, filename: str) -> str:
        """Run the code. If its last statement is an expression, return the repr of its value, as the prompt does."""
        tree = _parse(code, filename)
        last = tree.body.pop() if tree.body and type(tree.body[-1]) is ast.Expr else None
        body = _compile(tree, filename, "exec", dont_inherit=True)
        tail = _compile(ast.Expression(last.value), filename, "eval", dont_inherit=True) if last else None
        namespace = self._main.__dict__
        _exec(body, namespace)
        value = _eval(tail, namespace) if tail else None
        return "" if value is None else _repr(value)

    def _flush(self) -> None:
        for stream in {id(s): s for s in (sys.stdout, self._stdout)}.values():
            if stream is self._stdout and not stream.closed:
                stream.flush()
            elif stream is not None:  # a stream of the step's own
                with suppress(Exception):
                    stream.flush()


def _copy(source: str, target: str) -> None:
    """Copy a folder so that a listing gives the same order. A tmpfs lists the newest entry first."""
    _mkdir(target)
    for name in _listdir(source)[::-1]:
        old, new = f"{source}/{name}", f"{target}/{name}"
        if _islink(old):
            _symlink(_readlink(old), new)
        elif _isdir(old):
            _copy(old, new)
        else:
            _copy_file(old, new)  # keeps times and mode
    _copy_mode(source, target)


def _is_open(descriptor: int) -> bool:
    try:
        _fstat(descriptor)
    except OSError:  # the descriptor of the listing itself
        return False
    return True


def _silence() -> None:
    """Close the step's pipe, so that its reader sees the end."""
    null = _open(os.devnull, os.O_WRONLY)
    if null != 1:  # it is 1 if the step closed its standard output
        _dup2(null, 1)
        _close(null)


def _has_threads() -> bool:
    """Whether threads are left. The kernel removes a joined thread a moment later, so look repeatedly."""
    for _ in range(THREAD_LOOKS):
        if _len(_listdir("/proc/self/task")) == 1:
            return False
        _sleep(THREAD_SECONDS)
    return True


def _status(exception: BaseException) -> str:
    if isinstance(exception, MemoryError):
        return "memory"
    return "forbidden" if isinstance(exception, Forbidden) else "exception"


def _describe(exception: BaseException, code: str, filename: str) -> str:
    if isinstance(exception, SyntaxError) and exception.filename == filename:
        return describe_error(type(exception).__name__, str(exception.msg), exception.lineno, code)
    line, frame = None, exception.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == filename:
            line = frame.tb_lineno
        frame = frame.tb_next
    return describe_error(type(exception).__name__, str(exception), line, code)
