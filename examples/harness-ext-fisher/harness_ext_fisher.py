"""A pruner for the whole model at once: it needs the gradients of the loss."""

import torch

from harness_ext import ModelPruner, find_blocks, hookimpl


class Fisher(ModelPruner):
    """Removes the weights with the lowest ``w^2 * sum g^2`` of their linear layer. ``g`` is the gradient of the loss of one sequence.

    The sum is the diagonal of the empirical Fisher information, up to a constant. The product estimates how much the loss rises when one
    weight is removed: optimal brain damage (LeCun et al., 1989) with the Fisher information in place of the second derivative.
    """

    name = "fisher"
    calibrated = True

    def prune_model(self, model, sparsity, calibration, modules="all"):
        layers = [layer for block in find_blocks(model, modules) for layer in block.layers]
        weights = list({id(layer.stored): layer.stored for layer in layers}.values())  # all experts of a block are in one parameter
        wanted = [weight.requires_grad for weight in weights]
        squares = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
        with torch.enable_grad():
            for weight in weights:
                weight.requires_grad_(True)
            for ids in calibration.to(model.device).split(1):
                loss = model(input_ids=ids, labels=ids, use_cache=False).loss
                for square, gradient in zip(squares, torch.autograd.grad(loss, weights), strict=True):
                    square.add_(gradient.float().square())
        for weight, was in zip(weights, wanted, strict=True):
            weight.requires_grad_(was)
        information = {id(weight): square for weight, square in zip(weights, squares, strict=True)}
        for layer in layers:
            scores = layer.weight.float().square() * layer.part_of(information[id(layer.stored)])
            layer.write(layer.weight.masked_fill(sparsity.mask(scores), 0))
        return {"sequences": len(calibration)}


@hookimpl
def register_pruners(register):
    register(Fisher)
