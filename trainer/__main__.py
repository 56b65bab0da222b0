"""`python -m trainer COMMAND`: the same as the console script `multigate`."""

from trainer.cli import main

main()
