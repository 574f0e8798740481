"""The jobs that a user asks for: fit, predict, evaluate, pretrain, embed, compare."""
