"""The tops that `model.top` names: one module a top, each with `build(model, tasks, input_dim) -> nn.Module`.

A top maps x [B, D], the pooled embeddings and dense columns side by side, to (logits [B, T], gates): gates is a dict
from level to gate weights [B, G, E], empty for a top without gates. What a top draws at random in training, it draws by
the layers of `models.draws`.
"""
