"""Everything that runs inside the container: the fork server and the interpreters that run steps.

The way in is `server.main`. Imports only the standard library and this folder, because the container has nothing else
of ours; the one exception, `fast_path.arithmetic`, is never imported there.
"""
