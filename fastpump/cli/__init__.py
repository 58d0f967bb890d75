"""The command line: `fastpump serve`, `ingest` and `replay` (needs the extra `cli`).

Every command parses its arguments, calls public functions of the package, shows progress on
standard error and says with its exit code how it went: 0 everything done, 1 something failed or
was left out, 2 wrong usage, 130 stopped by Ctrl-C.
"""
