"""Faults planted one at a time, and whether the tests notice.

    python tests/planted_faults.py [-k SUBSTRING] [--jobs N] [--out docs/planted_faults.md]

Every fault is an edit of one place, with the tests of which at least one must fail. Each is made in a copy of the
repository, the named tests are run there, and the verdict is printed: caught; NOT CAUGHT; does not apply (the text to
replace is not there as often as said); broken edit (the tests could not be collected, or stopped at a NameError or the
like: the program does not run, which is no proof that a test compares anything). The exit code is 1 unless all are
caught. The tests must pass without any fault; that is looked at first.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot  # noqa: F401
import pytest
import sklearn.metrics  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
import torchvision  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
BREAKS = ("NameError", "SyntaxError", "ImportError", "ModuleNotFoundError", "AttributeError", "TypeError")


class Fault(NamedTuple):
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]  # node ids below tests/; one of them must fail
    count: int = 1  # how often ``old`` occurs; all are replaced


def fault(what: str, file: str, old: str, new: str, *tests: str, count: int = 1) -> Fault:
    return Fault(what, file, old, new, tests, count)


SETTINGS = "test_published.py::test_every_setting_is_the_published_one"
PLAYERS = "test_published.py::test_the_two_players_optimizers"
MEMORIES = "test_published.py::test_the_memories_as_built"
PARAMETERS = "test_published.py::test_the_networks_have_as_many_parameters_as_the_papers"
INITIAL = "test_initial.py::test_every_parameter_starts_as_it_must"
SLOTS = "test_initial.py::test_slots_start_within_one_over_the_root_of_their_dimension"
SEEDED = "test_initial.py::test_weights_are_a_function_of_the_seed"
AUGMENTED = "test_protocol.py::test_batches_are_augmented_where_the_row_says_so"
RANGES = "test_protocol.py::test_the_ranges_are_filled_evenly_and_the_axes_are_independent"
COSINE = "test_protocol.py::test_the_cosine_is_stepped_by_the_loop_for_the_generator_alone"
BEST = "test_protocol.py::test_which_epoch_becomes_the_best"
COUNTS = "test_protocol.py::test_the_loop_counts_batches_by_epoch_and_divides_losses_by_all_of_them"
TEST_LABELS = "test_protocol.py::test_thresholds_called_validation_do_not_know_the_test_labels"
VAL_LABELS = "test_protocol.py::test_other_validation_labels_give_other_thresholds_in_training"
TABLE = "test_protocol.py::test_the_figures_follow_from_the_table_of_scores"
PREDICTED = "test_protocol.py::test_prediction_calls_anomalous_what_reaches_bests_validation_threshold"
STATISTICS = "test_protocol.py::test_mu_and_sigma_are_of_the_first_training_images_alone"
TURNS = "test_protocol.py::test_the_generator_steps_at_every_nth_batch_and_then_the_queue_is_filled"
MASKS = "test_protocol.py::test_shortcuts_pass_a_share_of_the_positions_in_training_and_none_in_evaluation"
WEIGHTS = "test_protocol.py::test_every_loss_has_its_own_weight_and_the_generators_loss_is_their_sum"
REFINEMENT = "test_protocol.py::test_the_refinement_steps_as_a_plainly_written_adam"
SITTINGS = "test_protocol.py::test_a_run_in_two_sittings_is_the_run_never_stopped"
SIX = "test_golden_squid.py::test_six_training_iterations[squid_4patch]"
SIX_SIMSID = "test_golden_simsid.py::test_six_training_iterations[simsid_queue]"
SHRINKAGE = "test_golden_squid.py::test_shrinkage_and_its_gradient"
DDAD_MAPS = "test_golden_ddad.py::test_maps_and_scores"
DDAD_STEPS = "test_golden_ddad.py::test_four_training_steps"
FOCAL = "test_golden_ddad.py::test_focal_loss_and_its_gradient"
SQUARES = "test_ddad.py::test_squares_are_drawn_from_the_papers_ranges"
DIGITS = "test_data.py::test_digit_splits_are_fixed_and_training_is_made_anew"
BOOTSTRAP = "test_metrics.py::test_bootstrap_interval_covers_and_is_reproducible"
AVERAGE = "test_averaging.py::test_the_average_is_the_one_worked_out_by_hand"
FROZEN = "test_patchcore.py::test_layers_are_an_eighth_and_a_sixteenth_of_the_side_and_stay_as_they_are"
GANOMALY = "test_ganomaly.py::test_losses_are_worked_out_by_hand"
COVARIANCE = "test_padim.py::test_what_is_summed_up_batch_by_batch_is_numpys_covariance"
MAHALANOBIS = "test_padim.py::test_the_distance_is_the_root_of_the_quadratic_form"
REPLICATED = "test_padim.py::test_deeper_layers_are_replicated_and_the_chosen_channels_are_in_the_order_of_the_layers"
SINGULAR = "test_padim.py::test_fewer_images_than_dimensions_need_the_ridge"
TUNED = "test_panda.py::test_steps_are_sgds_with_the_gradient_cut_to_its_longest"
CENTRE = "test_panda.py::test_the_centre_is_where_the_training_images_lie_before_anything_is_tuned"
FISHER = "test_panda.py::test_the_fisher_information_is_the_mean_square_of_gradients_of_drawn_classes"

FAULTS = [
    # -- settings
    fault("base_channels 16", "configs/inpainting.py", "base_channels: int = 32", "base_channels: int = 16",
          SETTINGS, PARAMETERS),
    fault("statistics_images 20", "configs/inpainting.py", "statistics_images: int = 201",
          "statistics_images: int = 20", SETTINGS),
    fault("DigitAnatomy's statistics_images 201", "configs/digit_best.py", "statistics_images = 101",
          "statistics_images = 201", SETTINGS),
    fault("mask ratio 0.5", "configs/squid.py", "mask_ratio = 0.95", "mask_ratio = 0.5", SETTINGS),
    fault("mask ratio of SimSID's CheXpert row", "configs/simsid_chexpert.py", "mask_ratio = 0.9", "mask_ratio = 1.0",
          SETTINGS),
    fault("84 batches of CheXpert", "configs/chexpert_best.py", "max_batches = 85", "max_batches = 84", SETTINGS),
    fault("running statistics when scoring, as a setting", "configs/inpainting.py",
          '["image", "running"] = "image"', '["image", "running"] = "running"', SETTINGS),
    fault("one member too few", "configs/ddad.py", "members: int = 3", "members: int = 2", SETTINGS),
    fault("extra_data of LAG", "configs/medad.py", '"lag": 1500', '"lag": 1000', SETTINGS),
    fault("refinement's learning rate times ten, as a setting", "configs/ddad.py",
          "refine_learning_rate: float = 1e-4", "refine_learning_rate: float = 1e-3", SETTINGS),
    fault("SimSID's queue as a matrix", "configs/simsid_zhang.py", 'bottleneck = "queue"', 'bottleneck = "matrix"',
          SETTINGS, MEMORIES),
    fault("discriminator of half the width", "models/discriminator.py", "SQUID_CHANNELS = (16, 32, 64, 128, 128)",
          "SQUID_CHANNELS = (16, 32, 64, 64, 128)", PARAMETERS),

    # -- augmentation
    fault("augmentation never asked for", "dataloader/loader.py", "if self.config.augment else None",
          "if False else None", AUGMENTED),
    fault("augmentation never applied", "dataloader/loader.py", "if self.augmentation is None:", "if True:", AUGMENTED),
    fault("augmentation off by default", "configs/base.py", "augment: bool = True", "augment: bool = False", SETTINGS,
          AUGMENTED),
    fault("augmented digits", "configs/digit_best.py", "augment = False", "augment = True", SETTINGS, AUGMENTED),
    fault("translation by 10 %", "dataloader/augment.py", "TRANSLATE = 0.05", "TRANSLATE = 0.1", RANGES),
    fault("scale 0.9–1.1", "dataloader/augment.py", "SCALE = (0.95, 1.05)", "SCALE = (0.9, 1.1)", RANGES),
    fault("translation to one side", "dataloader/augment.py", "uniform_(-TRANSLATE, TRANSLATE,",
          "uniform_(0, TRANSLATE,", RANGES),
    fault("the scale turned round", "dataloader/augment.py", "(-shift / scale)", "(-shift * scale)",
          "test_data.py::test_augmentation_is_torchvisions"),
    fault("augmentation blurs", "dataloader/augment.py", '"nearest", "zeros"', '"bilinear", "zeros"',
          "test_protocol.py::test_augmented_pixels_are_pixels_of_the_image_and_black_outside"),
    fault("the same augmentation every epoch", "dataloader/loader.py", '"augment", epoch)', '"augment", 0)',
          "test_protocol.py::test_every_image_and_every_epoch_is_augmented_in_its_own_way"),
    fault("augmentation in evaluation", "evaluation/scoring.py", "method.score(to_float(batch, device))",
          "method.score(to_float(batch, device).roll(2, 3))",
          "test_protocol.py::test_validation_sees_the_images_as_they_are_and_training_the_augmented_ones"),

    # -- schedules
    fault("schedulers never stepped", "methods/base.py", "            scheduler.step()", "            pass", COSINE),
    fault("end_epoch never called", "training/loop.py", "        self.method.end_epoch()\n", "", COSINE),
    fault("the discriminator's rate is scheduled", "methods/squid.py", 'lr_scheduler(self.optimizers["generator"]',
          'lr_scheduler(self.optimizers["discriminator"]', PLAYERS, COSINE),
    fault("cosine down to 0", "methods/base.py", "config.cosine_epochs, config.cosine_min)", "config.cosine_epochs)",
          PLAYERS),
    fault("cosine over all epochs", "methods/base.py", "config.cosine_epochs, config.cosine_min)",
          "config.epochs, config.cosine_min)", "test_published.py::test_the_learning_rate_of_every_epoch"),
    fault("steps by a tenth", "methods/base.py", "config.lr_steps, config.lr_factor)", "config.lr_steps, 0.1)",
          "test_published.py::test_the_base_of_squid_steps_its_learning_rate_down"),

    # -- initial weights
    fault("attention initialised as a linear layer", "models/inpaint.py",
          "        nn.init.xavier_uniform_(self.in_proj.weight)\n", "",
          "test_initial.py::test_attention_starts_as_pytorchs"),
    fault("attention from a normal distribution", "models/inpaint.py", "xavier_uniform_", "xavier_normal_",
          "test_initial.py::test_attention_starts_as_pytorchs"),
    fault("attention's output starts with a bias", "models/inpaint.py",
          "        nn.init.zeros_(self.out_proj.bias)\n", "", INITIAL),
    fault("memory starts ten times too large", "models/memory.py", "bound = 1 / math.sqrt(dim)",
          "bound = 10 / math.sqrt(dim)", SLOTS, INITIAL),
    fault("memory starts positive", "models/memory.py", "uniform_(-bound, bound)", "uniform_(0, bound)", SLOTS),
    fault("reduced memory's slots by the wrong dimension", "models/memory.py",
          "initial_slots(locations, num_slots, slot_dim))", "initial_slots(locations, num_slots, slot_dim) / 4)",
          SLOTS),
    fault("members with the same weights", "methods/ddad.py", 'seeded(config.seed, "weights", name)',
          'seeded(config.seed, "weights")', "test_initial.py::test_the_members_of_an_ensemble_differ"),
    fault("weights whatever the seed", "main.py", 'seed_everything(config.seed, "weights")',
          'seed_everything(0, "weights")', SEEDED),

    # -- optimizers
    fault("generator's eps", "methods/squid.py", "eps=1e-7", "eps=1e-8", PLAYERS),
    fault("generator's weight decay", "methods/squid.py", "weight_decay=1e-5, ", "", PLAYERS),
    fault("discriminator's eps", "methods/squid.py", "eps=1e-8", "eps=1e-7", PLAYERS),
    fault("both players' betas", "methods/squid.py", '"betas": (0.5, 0.999)', '"betas": (0.9, 0.999)', PLAYERS),
    fault("one optimizer steps the encoder alone", "methods/squid.py", "Adam(self.generator.parameters()",
          "Adam(self.generator.encoder.parameters()", PLAYERS),
    fault("auto-encoders' betas", "methods/autoencoder.py", "BETAS = (0.5, 0.999)", "BETAS = (0.9, 0.999)",
          "test_published.py::test_the_auto_encoders_optimizers", DDAD_STEPS),
    fault("refinement's learning rate times ten, as built", "methods/ddad.py", '"lr": config.refine_learning_rate',
          '"lr": 10 * config.refine_learning_rate', REFINEMENT),
    fault("refinement's betas", "methods/ddad.py", "betas=BETAS, fused=True", "betas=(0.9, 0.999), fused=True",
          REFINEMENT),
    fault("refinement's weight decay left out", "methods/ddad.py",
          ', "weight_decay": config.refine_weight_decay}', "}", REFINEMENT),
    fault("refinement's weight decay decoupled", "methods/ddad.py", "torch.optim.Adam(", "torch.optim.AdamW(",
          REFINEMENT),
    fault("gradients pile up", "methods/base.py", "        optimizer.zero_grad(set_to_none=True)\n", "", SIX,
          REFINEMENT),

    # -- the best epoch
    fault("best.pt is the worst epoch", "training/loop.py",
          "main > best_auc - tolerance, max(best_auc, main)",
          "main < abs(best_auc), min(abs(best_auc), main)", BEST),
    fault("best.pt is the last epoch", "training/loop.py", "main > best_auc - tolerance, ", "True, ", BEST),
    fault("best.pt is the first epoch", "training/loop.py", "main > best_auc - tolerance, ",
          "best_auc < 0, ", BEST),
    fault("tolerance of the wrong sign", "training/loop.py", "best_auc - tolerance", "best_auc + tolerance", BEST),
    fault("the best moves downward", "training/loop.py", "max(best_auc, main)", "main", BEST),
    fault("a tie is a gain", "training/loop.py", "main > best_auc - tolerance", "main >= best_auc - tolerance",
          BEST),
    fault("tolerance for all rules", "training/loop.py", 'if self.config.best_rule == "tolerance" else 0.0',
          "if True else 0.0", BEST),
    fault("tolerance of 50 points", "training/loop.py", "self.config.best_tolerance / 100",
          "self.config.best_tolerance", BEST),
    fault("best.pt names another epoch", "training/loop.py", '"epoch": self.epoch + 1,\n', '"epoch": self.epoch,\n',
          BEST),
    fault("the best by another score", "training/loop.py", "main = auc[self.method.main_score]",
          "main = next(iter(auc.values()))", BEST),
    fault("the last checkpoint is evaluated", "commands/cli.py", '"--checkpoint", default="best"',
          '"--checkpoint", default="last"',
          "test_protocol.py::test_the_best_checkpoint_is_evaluated_and_predicts"),
    fault("val_every ignored", "training/loop.py", "% self.config.val_every == 0 or final", "% 1 == 0 or final",
          "test_protocol.py::test_epochs_between_validations_are_never_the_best"),

    # -- thresholds, figures, prediction
    fault("the validation threshold is of test labels", "eval.py", 'split = dataset.split("val")',
          'split = dataset.split("test")', TEST_LABELS),
    fault("training validates on the test images", "main.py", "dataset.split(name) for", 'dataset.split("test") for',
          "test_protocol.py::test_training_never_looks_at_the_test_images"),
    fault("the oracle threshold is validation's", "evaluation/metrics.py",
          "    threshold = oracle_threshold(labels, scores)\n",
          "    threshold = oracle_threshold(labels, scores) if val_threshold is None else val_threshold\n",
          TEST_LABELS),
    fault("the validation threshold is the oracle's", "evaluation/metrics.py",
          "        figures = at_threshold(labels, scores, val_threshold)\n",
          "        figures = at_threshold(labels, scores, val_threshold := threshold)\n", TEST_LABELS),
    fault("the threshold of the lowest accuracy", "evaluation/metrics.py", "correct.argmax()", "correct.argmin()",
          TABLE, "test_metrics.py::test_figures_worked_out_by_hand"),
    fault("thresholds of best.pt do not see the labels", "training/loop.py",
          "self.save_best(name, auc, thresholds(labels, scored))",
          "self.save_best(name, auc, thresholds(labels * 0 + 1, scored))", VAL_LABELS),
    fault("an image at the threshold is normal", "evaluation/metrics.py", "called, anomalous = scores >= threshold",
          "called, anomalous = scores > threshold", "test_metrics.py::test_figures_worked_out_by_hand"),
    fault("prediction the wrong way round", "predict.py", "[main_score] >= threshold", "[main_score] < threshold",
          PREDICTED),
    fault("prediction by another score's threshold", "predict.py", ".get(main_score)", '.get("discriminator")',
          PREDICTED),
    fault("recall and specificity exchanged", "evaluation/metrics.py", '"recall": share(tp, tp + fn)',
          '"recall": share(tn, tn + fp)', TABLE),
    fault("average precision is the AUC", "evaluation/metrics.py", "average_precision_score(labels, scores))",
          "roc_auc_score(labels, scores))", TABLE),
    fault("bootstrap of the normal images alone", "evaluation/metrics.py", "in_order = times_anomalous @",
          "times_anomalous = np.ones_like(times_anomalous)\n        in_order = times_anomalous @", BOOTSTRAP),
    fault("bootstrap of images, not persons", "evaluation/metrics.py", "if persons is None else np.array(persons)",
          "if True else np.array(persons)", "test_metrics.py::test_images_that_repeat_a_persons_tell_nothing_new"),
    fault("90 % interval", "evaluation/metrics.py", "tail = (1 - LEVEL) / 2", "tail = 1 - LEVEL",
          "test_protocol.py::test_the_interval_holds_95_percent_of_resampled_figures"),
    fault("ties of the bootstrap count nothing", "evaluation/metrics.py", 'for side in ("left", "right"))',
          'for side in ("left", "left"))', "test_metrics.py::test_ties_of_the_bootstrap_count_half"),
    fault("chi² doubled", "evaluation/metrics.py", "float(0.5 * (((a - b)", "float(1.0 * (((a - b)",
          "test_ddad.py::test_chi2_distance_by_hand"),

    # -- turns, queue, memory, losses
    fault("SQUID's n_critic off by one", "methods/squid.py", "batch.step % self.config.n_critic == 0",
          "(batch.step + 1) % self.config.n_critic == 0", TURNS),
    fault("SimSID's n_critic off by one", "methods/simsid.py", "batch.step % self.config.n_critic == 0",
          "(batch.step + 1) % self.config.n_critic == 0", TURNS),
    fault("turns counted through the epochs", "dataloader/loader.py",
          "enumerate(self.indices[start:], start)", "enumerate(self.indices[start:], start + 1)", COUNTS),
    fault("queue never filled", "methods/squid.py", "            self.fill_queue()", "            pass", TURNS),
    fault("queue filled before the generator's step", "methods/squid.py",
          "            terms = self.generator_losses(images, out)",
          "            self.fill_queue()\n            terms = self.generator_losses(images, out)", TURNS),
    fault("queue's pointer stands still", "models/memory.py", "self.pointer.copy_((self.pointer + count) % num_slots)",
          "self.pointer.copy_(self.pointer)", TURNS, "test_golden_squid.py::test_memory_queue"),
    fault("k slots survive, not k − 1", "models/memory.py", "soft.topk(top_k, dim=-1)", "soft.topk(top_k + 1, dim=-1)",
          SHRINKAGE),
    fault("no gradient straight through", "models/memory.py", "return (hard - soft).detach() + soft", "return hard",
          SHRINKAGE),
    fault("the mask is drawn per channel", "models/blocks.py", "torch.full_like(x[:, :1], self.ratio)",
          "torch.full_like(x, self.ratio)", MASKS),
    fault("the mask acts in evaluation", "models/blocks.py", "if not self.training or self.ratio", "if self.ratio",
          MASKS),
    fault("the mask the wrong way round", "models/blocks.py", "torch.where(self.draw_mask(x), replaced, x)",
          "torch.where(self.draw_mask(x), x, replaced)", MASKS),
    fault("the teacher's gradient reaches the encoder", "models/generator.py",
          "generator.teacher(f if generator.teacher_gradient else f.detach(), ", "generator.teacher(f, ",
          "test_methods.py::test_squid_teacher_sends_nothing_to_the_encoder"),
    fault("the teacher's skips reach the encoder", "models/generator.py", "f.detach(), detached(skips))",
          "f.detach(), skips)", "test_methods.py::test_squid_teacher_sends_nothing_to_the_encoder"),
    fault("distillation without the deepest level", "methods/losses.py", "zip(student, teacher, strict=True)",
          "zip(student[1:], teacher[1:], strict=True)", SIX),
    fault("distillation teaches the student alone", "methods/losses.py", "mean_squared_error(s, t) for",
          "mean_squared_error(s, t.detach()) for", SIX),
    fault("the teacher's loss has the student's weight", "methods/squid.py", "config.teacher_weight * mse_loss",
          "config.recon_weight * mse_loss", WEIGHTS),
    fault("the adversarial term without its weight", "methods/squid.py",
          "config.adversarial_weight * adversarial_loss", "adversarial_loss", WEIGHTS),
    fault("the reconstruction counts twice", "methods/squid.py", "config.recon_weight * mse_loss(out.x_hat, x)",
          "2 * config.recon_weight * mse_loss(out.x_hat, x)", SIX),
    fault("the generator steps on half of its terms", "methods/base.py", "loss = sum(losses.values())",
          "loss = sum(list(losses.values())[:2])", WEIGHTS),
    fault("the discriminator's labels swapped", "methods/squid.py",
          "real = adversarial_loss(logits, real=True)\n"
          "        fake = adversarial_loss(self.discriminator(x_hat), real=False)",
          "real = adversarial_loss(logits, real=False)\n"
          "        fake = adversarial_loss(self.discriminator(x_hat), real=True)", SIX),
    fault("the generator wants to be found out", "methods/squid.py", "adversarial_loss(self.discriminator(out.x_hat), "
          "real=True)", "adversarial_loss(self.discriminator(out.x_hat), real=False)", SIX, SIX_SIMSID),
    fault("the discriminator trains the generator", "methods/simsid.py", "self.discriminator_loss(x, "
          "out.x_hat.detach())", "self.discriminator_loss(x, x)", SIX_SIMSID),
    fault("the discriminator in evaluation mode while it trains", "methods/squid.py",
          "        images, generators_turn =",
          "        self.discriminator.eval()\n        images, generators_turn =", SIX),
    fault("losses divided by the generator's steps", "training/loop.py",
          "total / self.batch", "total / (self.batch // 2 + 1)", COUNTS),

    # -- scores
    fault("the discriminator's score the wrong way round", "methods/squid.py",
          "deviation = (self.mu.cpu() - logit)", "deviation = (logit - self.mu.cpu())", STATISTICS),
    fault("the shown score of normal images is high", "methods/squid.py", "torch.sigmoid(deviation)",
          "torch.sigmoid(-deviation)", STATISTICS),
    fault("scores normalised by the images that are scored", "methods/squid.py",
          "deviation = (self.mu.cpu() - logit) / self.sigma.cpu()",
          "deviation = (logit.mean() - logit) / self.sigma.cpu()",
          "test_methods.py::test_scores_of_an_image_do_not_depend_on_the_batch_and_survive_saving[squid]"),
    fault("sigma with n − 1", "methods/squid.py", "logits.std(correction=0)", "logits.std()", STATISTICS),
    fault("SimSID's sigma without its epsilon", "methods/simsid.py", "sigma_epsilon = 1e-8", "sigma_epsilon = 0.0",
          STATISTICS),
    fault("statistics of the last training images", "dataloader/loader.py",
          "self.dataset.training_images(epoch)[:count]", "self.dataset.training_images(epoch)[-count:]", STATISTICS),
    fault("statistics of one batch", "methods/squid.py", "in_order(drawn, self.config.statistics_images)",
          "in_order(drawn, self.config.batch_size)", STATISTICS),
    fault("statistics drawn anew at every evaluation", "methods/squid.py",
          'epoch if self.config.statistics_draw == "redrawn" else 0', "epoch",
          "test_statistics.py::test_statistics_are_of_the_same_images_every_time_or_drawn_anew"),
    fault("batch norm always estimated anew", "methods/squid.py", "if self.config.reestimate_batch_norm:", "if True:",
          "test_statistics.py::test_batch_norm_is_left_alone_by_default", STATISTICS),
    fault("running statistics when scoring", "methods/squid.py",
          'per_image=self.config.score_statistics == "image"', "per_image=False", STATISTICS),
    fault("scoring in training mode", "methods/squid.py", "        self.eval()\n        x_hat",
          "        self.train()\n        x_hat", STATISTICS),
    fault("SimSID's images in [0, 1]", "methods/simsid.py", "return 2 * images - 1 if self.config.tanh else images",
          "return images", "test_simsid.py::test_the_networks_see_minus_one_to_one_with_tanh"),

    # -- data, order and seeds
    fault("the same order every epoch", "dataloader/loader.py", '"order", epoch, ', '"order", 0, ',
          "test_data.py::test_order_and_augmentation_are_functions_of_seed_and_epoch"),
    fault("the members share an order", "dataloader/loader.py", "*([number] if number else [])", "*[]",
          "test_ddad.py::test_every_member_has_an_order_of_its_own"),
    fault("every epoch draws alike", "training/loop.py", '"step", self.global_step, ', '"step", self.batch, ',
          "test_protocol.py::test_what_an_iteration_draws_follows_from_the_seed_and_is_new_at_every_iteration"),
    fault("a last batch that is not full is left out", "configs/stages.py", "drop_last: bool = False",
          "drop_last: bool = True", "test_protocol.py::test_a_last_batch_of_one_image_is_trained_on"),
    fault("DDAD trains on a last batch that is not full", "configs/ddad.py",
          'ensemble |= {"drop_last": True,', 'ensemble |= {"drop_last": False,',
          "test_protocol.py::test_ddad_leaves_out_a_last_batch_that_is_not_full"),
    fault("validation images in training", "dataloader/zhang.py",
          '"train": [item for item in train if item.path not in chosen]', '"train": train',
          "test_data.py::test_zhang_official_layout"),
    fault("validation digits of the run's seed", "dataloader/digit.py", 'generator(0, "digits", name)',
          'generator(self.config.seed, "digits", name)', DIGITS),
    fault("the same digits every epoch", "dataloader/digit.py", 'generator(self.config.seed, "digits", epoch)',
          'generator(self.config.seed, "digits", 0)', DIGITS),
    fault("gray levels of 256", "system/device.py", ".float() / 255", ".float() / 256",
          "test_data.py::test_max_batches_cuts_the_epoch_and_in_order_the_images"),
    fault("SQUID's files read bilinearly, as a setting", "configs/base.py", '["bicubic", "bilinear"] = "bicubic"',
          '["bicubic", "bilinear"] = "bilinear"', SETTINGS),
    fault("DDAD's files read bicubically, as a setting", "configs/autoencoder.py", 'resize = "bilinear"',
          'resize = "bicubic"', SETTINGS),
    fault("all files read bilinearly", "dataloader/images.py", "Image.Resampling[resize.upper()]",
          "Image.Resampling.BILINEAR", "test_data.py::test_files_are_resized_to_a_square_as_the_methods_program_does"),
    fault("prediction reads files bilinearly", "predict.py", "trained.config.resize", '"bilinear"',
          "test_protocol.py::test_prediction_reads_files_with_the_rows_filter"),
    fault("digits' crops clamped, as a setting", "configs/datasets.py", '["redrawn", "clamped"] = "redrawn"',
          '["redrawn", "clamped"] = "clamped"', SETTINGS),
    fault("digits' crops that do not fit are the whole digit", "dataloader/digit.py",
          "sides[torch.arange(count), fitting.int().argmax(1)]", "sides[:, 0].clamp(max=side)",
          "test_data.py::test_crops_are_torchvisions"),
    fault("digits' crops too small", "dataloader/digit.py", "AREA = (0.6, 1.3)", "AREA = (0.4, 1.3)",
          "test_data.py::test_crops_are_torchvisions"),
    fault("SimSID's CheXpert row without anomalous training images", "configs/simsid_chexpert.py",
          "train_normal_fraction = 0.9", "train_normal_fraction = 1.0", SETTINGS),
    fault("the first anomalous images, not drawn ones, as a setting", "configs/base.py",
          '["drawn", "first"] = "drawn"', '["drawn", "first"] = "first"', SETTINGS),
    fault("the first anomalous images always", "dataloader/base.py", 'self.config.contamination == "first"', "True",
          "test_contamination.py::test_the_choice_is_a_function_of_the_seed"),
    fault("drawn anomalous images always", "dataloader/base.py", 'self.config.contamination == "first"', "False",
          "test_contamination.py::test_the_released_program_takes_the_first_of_the_listing"),
    fault("contaminated training keeps all normal images", "dataloader/base.py", "return normal[:kept] + ",
          "return normal + ", "test_contamination.py::test_the_last_normal_images_give_way_to_anomalous_ones"),
    fault("digits that look the same mirrored are flipped", "dataloader/digit.py",
          "eligible = torch.tensor(FLIPPABLE) - 1", "eligible = torch.tensor(FLIPPABLE)",
          "test_data.py::test_masks_cover_whole_cells_and_kinds_are_what_they_say"),
    fault("DDAD's first module without unlabeled images", "configs/ddad.py", "unlabeled=True", "unlabeled=False",
          "test_protocol.py::test_each_stage_is_trained_on_its_own_images"),
    fault("the anomaly rate is ignored", "configs/ddad.py", "int(self.extra_data * self.anomaly_rate)",
          "int(self.extra_data * 0.6)", "test_ddad.py::test_the_unlabeled_images_are_as_many_as_asked_for",
          "test_medad.py::test_an_empty_pool_does_not_matter_where_nothing_is_asked_of_it"),
    fault("unlabeled images are the normal ones alone", "dataloader/medad.py",
          "dict(enumerate(self.config.unlabeled()))", "{0: sum(self.config.unlabeled()), 1: 0}",
          "test_medad.py::test_training_unlabeled_and_test_images"),

    # -- DDAD
    fault("intra with a biased deviation", "methods/ddad.py", "x_hats.var(0)", "x_hats.var(0, correction=0)",
          DDAD_MAPS),
    fault("AE-U's variance is the geometric mean", "methods/ddad.py",
          "torch.stack([out.log_var.exp() for out in b]).mean(0)",
          "torch.stack([out.log_var for out in b]).mean(0).exp()", DDAD_MAPS),
    fault("AE-U's error times its variance", "methods/autoencoder.py", "(-out.log_var).exp() * error",
          "out.log_var.exp() * error", DDAD_STEPS),
    fault("MemAE's entropy of the wrong sign", "methods/autoencoder.py", "reconstruction + entropy_weight * entropy",
          "reconstruction - entropy_weight * entropy", DDAD_STEPS),
    fault("focal loss with an exponent of 1", "methods/ddad.py", "FOCAL_GAMMA = 2", "FOCAL_GAMMA = 1", FOCAL),
    fault("the refinement's probability of normal is its score", "methods/ddad.py", "p[:, 1:]", "p[:, :1]", DDAD_MAPS),
    fault("inter and intra exchanged", "methods/ddad.py", "torch.cat([found.inter, found.intra], dim=1)",
          "torch.cat([found.intra, found.inter], dim=1)", DDAD_MAPS),
    fault("the frozen modules in training mode", "methods/ddad.py",
          "self.eval()  # the modules that are not in training stay frozen", "self.train()",
          "test_ddad.py::test_the_refinement_sees_the_frozen_modules_in_evaluation_mode"),
    fault("squares too wide", "methods/synthetic.py", "HALF_WIDTH = (0.05, 0.2)", "HALF_WIDTH = (0.05, 0.4)", SQUARES),
    fault("squares at the border", "methods/synthetic.py", "CENTRE = (0.1, 0.9)", "CENTRE = (0.0, 1.0)", SQUARES),
    fault("a square in every image", "methods/synthetic.py", "PROBABILITY = 0.5", "PROBABILITY = 1.0",
          "test_protocol.py::test_half_of_the_refinements_images_have_a_square_of_another"),
    fault("a square of the image itself", "methods/synthetic.py", "torch.randint(1, count, (count,))",
          "torch.zeros(count, dtype=torch.long)",
          "test_protocol.py::test_half_of_the_refinements_images_have_a_square_of_another"),

    # -- resuming
    fault("the scheduler starts anew", "training/loop.py",
          '                scheduler.load_state_dict(saved["schedulers"][name])', "                pass", SITTINGS),
    fault("the optimizers start anew", "training/loop.py",
          '                optimizer.load_state_dict(saved["optimizers"][name])', "                pass", SITTINGS),
    fault("the random draws start anew", "training/loop.py", 'position["epoch"], position["batch"], '
          'position["global_step"]', 'position["epoch"], position["batch"], 0', SITTINGS),
    fault("the queue's pointer is lost", "models/memory.py", "torch.zeros((), dtype=torch.long))",
          "torch.zeros((), dtype=torch.long), persistent=False)", SITTINGS),

    # -- averaged weights, recorded scores, rules
    fault("the average forgets nothing", "training/averaging.py", "min(self.decay, (1 + self.steps)",
          "max(self.decay, (1 + self.steps)", AVERAGE),
    fault("the average counts from one", "training/averaging.py", "        self.steps = 0\n",
          "        self.steps = 1\n",
          AVERAGE),
    fault("batch norm is not averaged", "training/averaging.py", '("running_mean", "running_var")', "()", AVERAGE),
    fault("averaged weights stay in place", "training/averaging.py",
          "            self.method.load_state_dict(trained)\n",
          "            pass\n",
          "test_averaging.py::test_training_is_the_same_with_an_average_and_with_scores_recorded"),
    fault("the average starts anew when resumed", "training/loop.py", "                self.average.load(saved)\n", "",
          "test_averaging.py::test_an_average_goes_on_where_it_was"),
    fault("averaged scores are the trained ones", "training/loop.py", "with weights:", "with nullcontext():",
          "test_averaging.py::test_recorded_scores_are_those_that_the_checkpoints_give"),
    fault("the least error is of all images", "tools/rules.py", "[error][:, val.labels == 0].mean(1)",
          "[error].mean(1)", "test_rules.py::test_what_each_rule_chooses_is_worked_out_by_hand"),
    fault("the labelled rule takes the worst", "tools/rules.py", "val.auc(score).argmax()", "val.auc(score).argmin()",
          "test_rules.py::test_what_each_rule_chooses_is_worked_out_by_hand"),

    # -- remedies
    fault("cosine addressing of the query alone", "models/memory.py",
          "query, slots = (nn.functional.normalize(each, dim=-1) for each in (query, slots))",
          "query = nn.functional.normalize(query, dim=-1)",
          "test_remedies.py::test_cosine_addressing_goes_by_direction_alone"),
    fault("the penalty is not halved", "methods/squid.py", "config.r1_weight / 2", "config.r1_weight",
          "test_remedies.py::test_the_discriminators_loss_has_half_the_weighted_penalty"),
    fault("dropped skips are not made up for", "models/generator.py", "kept)) / kept", "kept))",
          "test_remedies.py::test_a_dropped_skip_is_zero_and_a_kept_one_keeps_the_mean"),
    fault("skips are dropped in evaluation", "models/generator.py", "self.training and self.skip_dropout",
          "self.skip_dropout", "test_remedies.py::test_a_dropped_skip_is_zero_and_a_kept_one_keeps_the_mean"),

    # -- frozen features, PatchCore, GANomaly
    fault("frozen batch norm moves", "models/features.py", "return super().train(False)", "return super().train(mode)",
          FROZEN),
    fault("images are not normalised", "models/features.py", "(images - self.mean) / self.std",
          "images + 0 * self.mean",
          "test_patchcore.py::test_images_are_normalised_as_imagenets_were"),
    fault("the nearest row of the last part alone", "models/bank.py", "torch.cat([best, near], dim=1)",
          "near", "test_patchcore.py::test_the_nearest_row_is_found_through_all_parts_of_the_bank"),
    fault("the coreset takes the nearest", "models/bank.py", "farthest.argmax()", "farthest.argmin()",
          "test_patchcore.py::test_the_coreset_takes_the_farthest_from_its_picks_one_by_one"),
    fault("the score is the mean patch", "methods/patchcore.py", "distances.amax(1)", "distances.mean(1)",
          "test_patchcore.py::test_the_score_is_the_worst_patchs_before_the_map_is_blurred"),
    fault("the blur's border is reflected", "methods/maps.py", "2 * count - 1 - position", "2 * count - 2 - position",
          "test_patchcore.py::test_the_blur_is_scipys"),
    fault("last.pt keeps the frozen part", "training/loop.py", "method.without_frozen(method.state_dict())",
          "method.state_dict()",
          "test_patchcore.py::test_last_pt_goes_without_the_frozen_part_and_best_pt_needs_nothing_else"),
    fault("the generator learns from the discriminator's verdict", "methods/ganomaly.py", "self.seen(x), self.seen(out",
          "self.judged(x), self.judged(out", GANOMALY),
    fault("GANomaly's reconstruction is squared", "methods/ganomaly.py", "l1_loss(out.x_hat, x)",
          "mse_loss(out.x_hat, x)", GANOMALY),
    fault("GANomaly's discriminator is never drawn anew", "methods/ganomaly.py",
          "            draw_weights(self.discriminator)\n", "            pass\n",
          "test_ganomaly.py::test_a_discriminator_that_has_won_is_drawn_anew"),
    # -- PaDiM, DN2, PANDA
    fault("PaDiM's covariances are divided by N", "models/gaussians.py", "covariance /= count - 1",
          "covariance /= count", COVARIANCE),
    fault("PaDiM's ridge is left out", "models/gaussians.py", ".add_(ridge)", ".add_(0)", COVARIANCE),
    fault("PaDiM's distance is squared", "models/gaussians.py", "[: features.shape[2]].sqrt()",
          "[: features.shape[2]]", MAHALANOBIS),
    fault("PaDiM's moments are summed up in float32", "models/gaussians.py", "part = part.double()",
          "part = part.float()", "test_padim.py::test_moments_are_exact_where_the_mean_is_large_and_kept_in_float32"),
    fault("PaDiM's deeper layers are interpolated", "methods/padim.py", 'mode="nearest"', 'mode="bilinear"',
          REPLICATED),
    fault("PaDiM's channels are the shallowest", "methods/padim.py", "torch.randperm(channels)",
          "torch.arange(channels)", "test_padim.py::test_the_channels_are_drawn_once_from_all_and_saved"),
    fault("PaDiM's score is of the map before the blur", "methods/padim.py", "pixels.amax((1, 2, 3))",
          "grid.amax((1, 2, 3))", "test_padim.py::test_the_score_is_the_largest_pixel_of_the_blurred_map"),
    fault("PaDiM takes as few images as dimensions without a ridge", "methods/padim.py",
          "count <= config.dimensions", "count < config.dimensions", SINGULAR),
    fault("DN2 counts the nearest image alone", "methods/panda.py", "self.points(images), self.config.neighbours",
          "self.points(images)", "test_panda.py::test_dn2_measures_squared_distances_to_the_two_nearest_images"),
    fault("PANDA's gradient is not cut", "methods/panda.py", "clip_grad_norm_(self.tuned.parameters(), self.config",
          "(lambda *_: None)(self.tuned.parameters(), self.config", TUNED),
    fault("PANDA's centre follows the tuning", "methods/panda.py", "        if epoch:\n            return\n", "",
          CENTRE),
    fault("PANDA's batch norm is trained", "models/panda.py", "return super().train(False)",
          "return super().train(mode)",
          "test_panda.py::test_training_moves_the_deeper_layers_alone_and_no_running_statistics"),
    fault("PANDA's tuned layers are not the file's", "methods/panda.py", "            part.take(whole)\n", "",
          "test_panda.py::test_all_parts_take_the_weights_of_the_file"),
    fault("EWC's gradients are not squared one by one", "methods/panda.py", "parameters)).square()", "parameters))",
          FISHER),
    fault("EWC holds all weights alike", "methods/panda.py", "(self.fisher * moved.square())", "moved.square()",
          "test_panda.py::test_leaving_the_weights_that_matter_costs_as_their_information_says"),
]  # fmt: skip


def copy_repository(folder: Path) -> None:
    """Tracked files and new ones that are not ignored, as they are now."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def run_tests(folder: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Pytest's exit code and what it wrote. For a process of its own: it imports the modules of that folder."""
    os.chdir(folder)
    os.environ["COLUMNS"] = "300"  # so that errors are named in full
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() not in (ROOT, ROOT / "tests")]
    options = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
    with contextlib.redirect_stdout(io.StringIO()) as written, contextlib.redirect_stderr(written):
        code = pytest.main([*options, *(f"tests/{test}" for test in tests)])
    return int(code), written.getvalue()


def verdict(repository: Path, planted: Fault) -> str:
    """``caught``, or what is wrong."""
    with tempfile.TemporaryDirectory(prefix="planted_") as place:
        folder = shutil.copytree(repository, Path(place) / "repository")
        path = folder / planted.file
        text = path.read_text(encoding="utf-8")
        if text.count(planted.old) != planted.count:
            return f"does not apply: the text occurs {text.count(planted.old)} times, not {planted.count}"
        path.write_text(text.replace(planted.old, planted.new), encoding="utf-8")
        code, output = run_tests(folder, planted.tests)
    if code == pytest.ExitCode.OK:
        return "NOT CAUGHT"
    failed = re.search(r"^FAILED \S+(.*)$", output, re.MULTILINE)
    if code != pytest.ExitCode.TESTS_FAILED or not failed or any(name in failed[1] for name in BREAKS):
        return f"broken edit: {failed[1] if failed else output.strip().splitlines()[-1:]}"
    return "caught"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", default="", metavar="SUBSTRING", help="only the faults whose name or file has this")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many at a time (default: 1)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table of faults and verdicts there")
    args = parser.parse_args()
    chosen = [planted for planted in FAULTS if args.k.lower() in f"{planted.what} {planted.file}".lower()]
    named = tuple(sorted({test for planted in chosen for test in planted.tests}))
    if not named:
        parser.error(f"no fault has {args.k!r} in its name or file")

    found = []
    # a new process for every fault, forked from this one, which has imported what takes long
    with (
        tempfile.TemporaryDirectory(prefix="planted_") as place,
        multiprocessing.get_context("fork").Pool(args.jobs, maxtasksperchild=1) as pool,
    ):
        repository = Path(place)
        copy_repository(repository)
        code, output = pool.apply(run_tests, (repository, named))
        if code:
            print(f"The tests do not pass without a fault:\n{output}")
            return 1
        verdicts = pool.imap(partial(verdict, repository), chosen)
        for planted, of_it in zip(chosen, verdicts, strict=True):
            found.append(of_it)
            print(f"{of_it:>10}  {planted.what} ({planted.file})", flush=True)
    caught = f"{found.count('caught')} of {len(chosen)} caught"
    print(caught)
    if args.out:
        args.out.write_text(table(chosen, found, caught), encoding="utf-8")
    return int(found.count("caught") < len(chosen))


def table(faults: list[Fault], verdicts: list[str], caught: str) -> str:
    """Markdown: every fault, where it is planted, the tests that are named for it and the verdict."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout
    lines = [
        "# Planted faults",
        "",
        f"Written by `python tests/planted_faults.py --out …` at {commit.strip()}: {caught}.",
    ]
    lines += ["", "| fault | file | tests of which one must fail | |", "| --- | --- | --- | --- |"]
    for planted, of_it in zip(faults, verdicts, strict=True):
        tests = ", ".join(f"`{test}`" for test in planted.tests)
        lines.append(f"| {planted.what} | {planted.file} | {tests} | {of_it} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
