"""The task balances that `training.task_balance` names: one module each; `models.balancing` is their interface."""
