"""What ranks say to each other. The lowest layer of the trainer.

Read: `collectives` (sums and maxima over all ranks), `agreement` (one word of rank 0 that all follow).
"""
