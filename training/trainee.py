"""The model in training, with its training-only heads, and what each stage's loss is."""

import itertools

import torch
from torch import Tensor, nn

from training.batches import CropBatch, PictureBatch
from training.demo_config import DEMO_CONFIG
from training.dense import BACKGROUND, DenseHead, DenseTargets, dense_loss, embed_words
from training.initial_weights import initialise_decoder, initialise_vision
from training.losses import task_losses
from training.muon import Muon
from workflow_blocks.moondream2.image_crops import Tiling
from workflow_blocks.moondream2.model import Moondream2


class Trainee(nn.Module):
    """The model and the heads that tell what each patch and each image embedding shows."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Moondream2(DEMO_CONFIG)
        initialise_vision(self.model.vision)
        initialise_decoder(self.model)
        self.crop_head = DenseHead(DEMO_CONFIG.vision.enc_dim, DEMO_CONFIG.text.dim)
        self.embedding_head = DenseHead(DEMO_CONFIG.text.dim, DEMO_CONFIG.text.dim)

    def crop_losses(self, batch: CropBatch) -> dict[str, Tensor]:
        """What the encoder gets wrong about crops."""
        words = embed_words(batch.words, self.model.text.wte)
        predicted = self.crop_head(self.model.vision.encode_crops(batch.crops), words)
        return {"dense": dense_loss(predicted, DenseTargets.of(batch.cells, batch.items, absolute=False))}

    def picture_losses(self, batch: PictureBatch, blur: float, encoder_learns: bool) -> dict[str, Tensor]:
        """What the whole model gets wrong about pictures and the tasks about them."""
        vision = self.model.vision
        with torch.set_grad_enabled(encoder_learns and torch.is_grad_enabled()):
            features = vision.encode_crops(batch.crops)
        tilings = [Tiling(*tiling) for tiling in batch.tilings]
        parts = features.split([1 + rows * cols for rows, cols in tilings])
        joined = torch.stack([vision.join(part, tiling) for part, tiling in zip(parts, tilings, strict=True)])
        embeddings = vision.proj_mlp(joined)
        losses = task_losses(self.model, embeddings, batch.cells.flatten(1).long(), batch.packed, blur)
        words = embed_words(batch.words, self.model.text.wte)
        targets = DenseTargets.of(batch.cells, batch.items, absolute=True)
        return losses | {"dense": dense_loss(self.embedding_head(embeddings, words), targets)}

    @torch.no_grad()
    def patch_accuracy(self, batch: CropBatch) -> tuple[float, float]:
        """Share of the patches that show an object, and of those that show none, whose name is right."""
        words = embed_words(batch.words, self.model.text.wte)
        names, _, _ = self.crop_head(self.model.vision.encode_crops(batch.crops), words)
        true = DenseTargets.of(batch.cells, batch.items, absolute=False).names
        right, is_object = names.argmax(dim=-1) == true, true != BACKGROUND
        return float(right[is_object].float().mean()), float(right[~is_object].float().mean())

    def parameters_of(self, encoder: bool, decoder: bool) -> list[nn.Parameter]:
        """What a stage teaches: the encoder, the rest, or both."""
        vision, text = self.model.vision, self.model.text
        of_projection = {id(parameter) for parameter in vision.proj_mlp.parameters()}
        of_encoder = [parameter for parameter in vision.parameters() if id(parameter) not in of_projection]
        chosen: list[nn.Parameter] = []
        if encoder:
            chosen += of_encoder
        if decoder:
            parts = (vision.proj_mlp, text, self.model.region, self.embedding_head)
            chosen += itertools.chain.from_iterable(part.parameters() for part in parts)
        else:
            chosen += [*self.crop_head.parameters(), text.wte]
        return [parameter for parameter in chosen if parameter.requires_grad]

    def make_optimizers(self, parameters: list[nn.Parameter]) -> tuple[torch.optim.Optimizer, ...]:
        """AdamW, and Muon for the matrices between hidden layers, which learn far faster with it."""
        model = self.model
        hidden = nn.ModuleList(
            [
                model.vision.blocks,
                model.vision.proj_mlp,
                model.text.blocks,
                model.region.coord_decoder.fc1,
                model.region.size_decoder.fc1,
            ]
        )
        of_hidden = {id(parameter) for parameter in hidden.parameters() if parameter.ndim == 2}
        matrices = [parameter for parameter in parameters if id(parameter) in of_hidden]
        others = [parameter for parameter in parameters if id(parameter) not in of_hidden]
        return (
            torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=0.02),
            Muon(matrices, lr=0.0, weight_decay=0.02),
        )
