"""Fixed task weights, `tasks.<name>.weight`, from the first step to the last."""

from models.balancing import Balance

build = Balance
