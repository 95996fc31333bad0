"""`python -m trtq` is the `trtq` command."""

from trtq.cli import main

main()
