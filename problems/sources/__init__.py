"""Readers of public problem files: one small file for each form of a row, and `json_lines` for the file around it.

The way in is `problems.sources.json_lines.import_problems`; its table FORMS lists the forms.
Must never import a domain by name.
"""
