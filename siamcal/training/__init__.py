"""Training NCG and CSN under one recipe: the same start, batches and steps.

Everything random is a function of (seed, step): the order of the frames, the augmentation and the
dropout. So an interrupted run resumes bit for bit from model, optimiser and step alone, NCG and
CSN see the same batches in the same order, and any number of processes shares one global batch.

From the bottom up: `recipe` and `losses`, `augmentation`, `networks` and `batches`, `objective`
(loss, optimiser, learning rates), `resume` and `log`, the `loop` over all of them; `prediction`
and `duration` need no loop; `everyone` trains a calibrator to be published.
"""
