"""A few steps of plain AdamW, without the loop: whether a recipe's loss can be lowered at all."""

import torch

from training.recipe import Batch, Recipe


def memorise(recipe: Recipe, batch: Batch, *, steps: int, rate: float) -> list[float]:
    """Train what the recipe trains on one batch; the losses before each step."""
    parameters = dict(recipe.named_parameters())
    recipe.requires_grad_(False)
    chosen = [parameters[name] for name in recipe.trained()]
    for parameter in chosen:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(chosen, lr=rate, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = recipe(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
