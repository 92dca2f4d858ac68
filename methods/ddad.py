"""DDAD: Cai et al., "Dual-Distribution Discrepancy for Anomaly Detection in Chest X-Rays", MICCAI 2022, and DDAD-ASR:
Cai et al., "Dual-distribution discrepancy with self-supervised refinement for anomaly detection in medical images",
Medical Image Analysis 2023.

Deviations from the released program; none changes a score of given weights (but the last, of what is read):
- Seeds fix weights, order and synthetic anomalies. A member's follow from the experiment's seed and its name (udm_0,
  ndm_2, …), so it is the same network beside however many others; a re-run finds it instead of adding one.
- The final epoch is used, never the best on the test set.
- Both refinement nets learn in one stage, from the same synthetic anomalies. The other image of a synthetic anomaly is
  another one of the batch.
- ``precision = bf16`` concerns the refinement nets alone: discrepancies are differences of nearly equal values.
- Images are in [0, 1] outside the networks, which see [−1, 1]; scores and maps are of the latter, as they are there.
- The deviation over an ensemble's networks, each alone, is that of a sample (n − 1); the released program divides by n.
- tools/prepare_data.py applies a DICOM file's rescale and window before it stretches what is left to 8 bits; the
  released program stretches the stored pixels (``--raw``).
"""

from typing import NamedTuple

import torch
from torch import nn

from configs.ddad import DdadConfig
from dataloader.loader import Batch
from methods.autoencoder import BETAS, build_network, losses, mean_of, pixel_errors, to_images, to_network
from methods.base import Method, Scores, lr_scheduler
from methods.synthetic import with_squares
from models.asrnet import AsrNet
from models.autoencoder import AutoEncoder
from system.seeding import seeded

MODULES = ("udm", "ndm")  # the unknown and the normative distribution module, a and b in the paper
FOCAL_GAMMA = 2
FOCAL_SMOOTH = 1e-5


class Discrepancies(NamedTuple):
    """What the two ensembles say of images (B, 1, S, S) in [−1, 1]; maps are (B, 1, S, S) ≥ 0."""

    rec: torch.Tensor  # squared error of the normative module's mean
    intra: torch.Tensor  # deviation among the normative module's networks
    inter: torch.Tensor  # distance between the modules' means
    x_hat: torch.Tensor  # (B, 1, S, S): the normative module's mean
    single: dict[str, torch.Tensor]  # member → the error map of this network alone


class Ddad(Method):
    """Image scores: ``r_dual`` and ``r_intra`` (DDAD-ASR's), ``inter``, ``intra``, ``rec``; every network's own too."""

    score_names = ("r_dual", "r_intra", "inter", "intra", "rec")

    def __init__(self, config: DdadConfig):
        super().__init__(config)
        if not config.refine_epochs:
            self.score_names = tuple(name for name in self.score_names if not name.startswith("r_"))
        self.members, self.refinement = nn.ModuleDict(), nn.ModuleDict()
        for name in (name for names in self.groups.values() for name in names):
            with seeded(config.seed, "weights", name):
                self.members[name] = build_network(config.backbone, config)
        for name, maps in (("dual", 2), ("intra", 1)) if config.refine_epochs else ():
            with seeded(config.seed, "weights", "refine", name):
                self.refinement[name] = AsrNet(maps).to(memory_format=torch.channels_last)  # faster to convolve
        self.start_stage("ndm")

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        return {module: tuple(f"{module}_{k}" for k in range(self.config.members)) for module in MODULES}

    def ensemble(self, module: str) -> list[AutoEncoder]:
        return [self.members[name] for name in self.groups[module]]

    def trained_in(self, stage: str) -> list[nn.Module]:
        return list(self.refinement.values()) if stage == "refine" else self.ensemble(stage)

    def start_stage(self, name: str) -> None:
        super().start_stage(name)
        config = self.config
        parameters = [parameter for network in self.trained_in(name) for parameter in network.parameters()]
        if name == "refine":
            adam = {"lr": config.refine_learning_rate, "weight_decay": config.refine_weight_decay}
        else:
            adam = {"lr": config.learning_rate}
        self.optimizers = {name: torch.optim.Adam(parameters, betas=BETAS, fused=True, **adam)}
        self.schedulers = {name: lr_scheduler(self.optimizers[name], config)}

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        self.eval()  # the modules that are not in training stay frozen
        x = to_network(batch.images)
        found = self.refinement_losses(x) if self.stage == "refine" else self.ensemble_losses(x)

        # no parameter is in two of the losses, so one step on their sum is a step of every network on its own (the
        # members follow one another, so that each is the same network, to the bit, beside however many others)
        self.update(self.stage, found, batch)
        return found

    def ensemble_losses(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every member's loss on its own part of the batch: x is (K·B, 1, S, S)."""
        found = {}
        names = self.groups[self.stage]
        for name, own in zip(names, x.chunk(len(names)), strict=True):
            out = self.members[name].train()(own)
            found[name] = losses(out, own, self.config.entropy_weight)["loss"]
        return found

    def refinement_losses(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each refinement net's loss in finding the squares that were blended into the images."""
        # 1. synthetic anomalies
        x, mask = with_squares(x)

        # 2. the frozen modules' discrepancies
        with torch.no_grad():
            found = self.discrepancies(x)

        # 3. what the nets find in them
        self.refinement.train()
        return {name: focal_loss(p, mask) for name, p in self.refined(found).items()}

    def discrepancies(self, x: torch.Tensor) -> Discrepancies:
        outs = {name: network(x) for name, network in self.members.items()}
        a, b = ([outs[name] for name in self.groups[module]] for module in MODULES)
        x_hats = torch.stack([out.x_hat for out in b])  # (K, B, 1, S, S)
        mu_a, mu_b = torch.stack([out.x_hat for out in a]).mean(0), x_hats.mean(0)  # (B, 1, S, S)
        variance = 1.0
        if self.config.backbone == "aeu":
            variance = torch.stack([out.log_var.exp() for out in b]).mean(0)
        return Discrepancies(
            rec=(x - mu_b).square() / variance,
            intra=(x_hats.var(0) / variance).sqrt(),
            inter=((mu_a - mu_b).square() / variance).sqrt(),
            x_hat=mu_b,
            single={name: pixel_errors(out, x) for name, out in outs.items()},
        )

    def refined(self, found: Discrepancies) -> dict[str, torch.Tensor]:
        """Each refinement net's probabilities of normal and anomalous: (B, 2, S, S)."""
        inputs = refinement_inputs(found)
        with self.autocast():
            logits = {name: network(inputs[name]) for name, network in self.refinement.items()}
        return {name: each.to(inputs[name]).softmax(1) for name, each in logits.items()}

    def scores_of(self, images: torch.Tensor) -> Scores:
        found = self.discrepancies(to_network(images))
        maps = {f"r_{name}": p[:, 1:] for name, p in self.refined(found).items()}  # (B, 1, S, S)
        maps |= {"inter": found.inter, "intra": found.intra, "rec": found.rec}
        maps = {name: pixels for name, pixels in maps.items() if name not in self.untrained}
        return Scores(
            image={name: mean_of(pixels) for name, pixels in maps.items()},
            columns={name: mean_of(pixels) for name, pixels in found.single.items()},
            maps=maps,
            reconstruction=to_images(found.x_hat),
        )

    def load_state_dict(
        self, state_dict: dict[str, torch.Tensor], strict: bool = True, assign: bool = False
    ) -> NamedTuple:
        """Raises RuntimeError that names the members that are missing or too many."""
        there = {entry.split(".")[1] for entry in state_dict if entry.startswith("members.")}
        if there != set(self.members):
            missing, extra = sorted(set(self.members) - there), sorted(there - set(self.members))
            raise RuntimeError(f"members missing: {', '.join(missing) or 'none'}; extra: {', '.join(extra) or 'none'}")
        return super().load_state_dict(state_dict, strict, assign)


def refinement_inputs(found: Discrepancies) -> dict[str, torch.Tensor]:
    """What each refinement net sees: (B, 2, S, S) and (B, 1, S, S)."""
    return {"dual": torch.cat([found.inter, found.intra], dim=1), "intra": found.intra}


def focal_loss(p: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of −(1 − q)²·log q over the pixels, q the probability of the true class (DDAD-ASR, ASR-Net).

    Args:
        p: (B, 2, H, W) probabilities.
        mask: (B, H, W) int64 classes, 1 = anomalous.
    """
    target = nn.functional.one_hot(mask, 2).movedim(-1, 1).to(p).clamp(FOCAL_SMOOTH, 1 - FOCAL_SMOOTH)  # (B, 2, H, W)
    q = (target * p).sum(1) + FOCAL_SMOOTH  # (B, H, W)
    return -((1 - q) ** FOCAL_GAMMA * q.log()).mean()
