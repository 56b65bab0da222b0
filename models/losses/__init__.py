"""The losses that `tasks.<name>.loss` names: one module a loss.

Each has `loss(input, labels, *, options...)`, all [B, N] -> the loss of every row and task [B, N]; its keyword
arguments are the keys that `tasks.<name>.options` may set. `INPUT` says what it is given, "logit" or "prediction";
`OUTPUT` what turns a logit into a prediction when the task says `output: auto`, "sigmoid" or "identity".
"""
