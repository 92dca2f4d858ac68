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
CHANGED = "test_cache.py::test_a_changed_file_alone_is_decoded_again"
SECOND_START = "test_cache.py::test_a_second_start_decodes_nothing_and_reads_the_same_to_the_last_bit"
OTHER_SETTINGS = "test_cache.py::test_other_settings_are_read_anew_and_kept_beside"
REPEATED = "test_duplicates.py::test_repeated_test_images_are_found_in_every_dataset_of_files"
AVERAGE = "test_averaging.py::test_the_average_is_the_one_worked_out_by_hand"
FROZEN = "test_patchcore.py::test_layers_are_an_eighth_and_a_sixteenth_of_the_side_and_stay_as_they_are"
SCARS = "test_cutpaste.py::test_scars_are_drawn_from_the_papers_ranges_scaled_and_lie_within_the_image"
FITTING = "test_implicit_field.py::test_a_code_is_fitted_by_adam_in_phases_that_start_anew"
GANOMALY = "test_ganomaly.py::test_losses_are_worked_out_by_hand"
RD4AD_NETWORKS = "test_rd4ad.py::test_networks_on_wide_resnet_50_are_the_published_ones"
RD4AD_SCORE = "test_rd4ad.py::test_the_score_is_the_maximum_of_the_blurred_sum"
FANOGAN = "test_fanogan.py::test_the_gans_losses_are_worked_out_by_hand"
SAMPLES = "test_vae.py::test_a_sample_is_decoded_in_training_and_the_mean_in_evaluation"
DIVERGENCE = "test_vae.py::test_the_divergence_is_the_mean_over_the_latent_and_zero_for_a_standard_gaussian_alone"
GRADIENTS = "test_vae.py::test_gradient_scores_are_those_of_each_image_by_finite_differences"
PERCEPTUAL = "test_ae_pl.py::test_the_relative_difference_is_worked_out_by_hand"
IGD_LOSSES = "test_igd.py::test_losses_are_worked_out_by_hand"
IGD_CENTRE = "test_igd.py::test_the_centre_is_the_mean_kept_from_zero_and_sigma_is_taken_around_it"
COVARIANCE = "test_padim.py::test_what_is_summed_up_batch_by_batch_is_numpys_covariance"
MAHALANOBIS = "test_padim.py::test_the_distance_is_the_root_of_the_quadratic_form"
REPLICATED = "test_padim.py::test_deeper_layers_are_replicated_and_the_chosen_channels_are_in_the_order_of_the_layers"
SINGULAR = "test_padim.py::test_fewer_images_than_dimensions_need_the_ridge"
TUNED = "test_panda.py::test_steps_are_sgds_with_the_gradient_cut_to_its_longest"
CENTRE = "test_panda.py::test_the_centre_is_where_the_training_images_lie_before_anything_is_tuned"
GRAD_CAM = "test_grad_cam.py::test_each_images_map_is_a_plain_grad_cam_of_what_the_discriminator_sees"
KEPT = "test_batch.py::test_a_run_without_its_folder_stays_in_the_table_as_it_was_kept"
LATER_STAGE = "test_batch.py::test_lines_that_differ_in_a_later_stage_share_those_before_it_and_a_curve_has_every_score"
FISHER = "test_panda.py::test_the_fisher_information_is_the_mean_square_of_gradients_of_drawn_classes"
PAIRED = "test_compare.py::test_what_scores_share_does_not_widen_their_difference"
DELONG = "test_compare.py::test_delongs_test_is_that_of_the_definition"
UNFITTED = "test_predict.py::test_a_map_comes_back_to_its_place_in_the_image"
SEED_GROUPS = "test_compare.py::test_groups_of_seeds_are_compared_by_their_means"
P_THRESHOLD = "test_normals.py::test_reaching_the_threshold_is_a_p_value_of_at_most_the_rate"
EARLIER = "test_page.py::test_nothing_of_an_earlier_evaluation_remains"
STRIPS = "test_page.py::test_strips_are_of_input_reconstruction_difference_and_map"
TABLES = "test_page.py::test_the_page_of_results_shows_every_table_and_links_every_file"
AUPRO = "test_localisation.py::test_figures_are_those_of_the_definitions"

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
    fault("augmentation in evaluation", "evaluation/scoring.py", "method.score(to_float(batch, device),",
          "method.score(to_float(batch, device).roll(2, 3),",
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
    fault("the last checkpoint is evaluated", "commands/cli.py", "args.checkpoint or config.checkpoint",
          'args.checkpoint or "last"',
          "test_protocol.py::test_the_best_checkpoint_is_evaluated_and_predicts"),
    fault("val_every ignored", "training/loop.py", "% self.config.val_every == 0 or final", "% 1 == 0 or final",
          "test_protocol.py::test_epochs_between_validations_are_never_the_best"),

    # -- thresholds, figures, prediction
    fault("the validation threshold is of test labels", "eval.py", 'else dataset.split("val")',
          'else dataset.split("test")', TEST_LABELS),
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
    fault("prediction the wrong way round", "evaluation/verdicts.py",
          "(self.scores >= threshold)", "(self.scores < threshold)", PREDICTED),
    fault("prediction by another score's threshold", "predict.py", ".get(main_score)", '.get("discriminator")',
          PREDICTED),
    fault("recall and specificity exchanged", "evaluation/metrics.py", '"recall": share(tp, tp + fn)',
          '"recall": share(tn, tn + fp)', TABLE),
    fault("average precision is the AUC", "evaluation/metrics.py", "average_precision_score(labels, scores))",
          "roc_auc_score(labels, scores))", TABLE),
    fault("bootstrap of the normal images alone", "evaluation/metrics.py", "in_order = times_anomalous @",
          "times_anomalous = np.ones_like(times_anomalous)\n        in_order = times_anomalous @", BOOTSTRAP),
    fault("bootstrap of images, not persons", "evaluation/metrics.py", "if persons is None:", "if True:",
          "test_metrics.py::test_images_that_repeat_a_persons_tell_nothing_new"),
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
    fault("queue never filled", "methods/squid.py", "                self.fill_queue()", "                pass", TURNS),
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
    fault("the discriminator trains the generator", "methods/simsid.py", "self.discriminator_losses(x, "
          "out.x_hat.detach())", "self.discriminator_losses(x, x)", SIX_SIMSID),
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
    fault("a sigma of 0 stays 0", "methods/squid.py", "self.sigma.masked_fill_(self.sigma == 0, 1)", "pass",
          "test_methods.py::test_all_images_score_alike_where_the_generator_gives_them_the_same_reconstruction"),
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
    fault("the map is of what raises the logit", "methods/squid.py", "-network.judge(", "network.judge(",
          "test_grad_cam.py::test_what_lowers_the_logit_lights_up_where_it_is", GRAD_CAM),
    fault("the map is of the image", "methods/squid.py", "self.to_network(scores.reconstruction)",
          "self.to_network(images)", GRAD_CAM),
    fault("SimSID's map is of x_hat in [0, 1]", "methods/squid.py", "self.to_network(scores.reconstruction)",
          "scores.reconstruction", GRAD_CAM),
    fault("every place has its own gradient", "methods/grad_cam.py", "gradient.mean((2, 3), keepdim=True)", "gradient",
          "test_grad_cam.py::test_the_map_is_the_one_worked_out_by_hand", GRAD_CAM),
    fault("maps below 0", "methods/grad_cam.py", ".sum(1, keepdim=True).relu()", ".sum(1, keepdim=True)",
          "test_grad_cam.py::test_the_map_is_the_one_worked_out_by_hand", GRAD_CAM),
    fault("maps of the batch's statistics", "models/discriminator.py", "torch.var_mean(x.detach(), (2, 3),",
          "torch.var_mean(x.detach(), (0, 2, 3),",
          "test_methods.py::test_scores_of_an_image_do_not_depend_on_the_batch_and_survive_saving[squid]", GRAD_CAM),
    fault("the map's gradient through an image's own statistics", "models/discriminator.py",
          "_normalise_each_by_constants if per_image", "_normalise_each if per_image", GRAD_CAM),
    fault("maps of 4 × 4 features", "models/discriminator.py", "SHOWN_SIDE = 8", "SHOWN_SIDE = 4",
          "test_grad_cam.py::test_it_is_of_the_deepest_features_that_say_where"),
    fault("every scoring makes all maps", "evaluation/scoring.py", "all_maps=keep_maps", "all_maps=True",
          "test_grad_cam.py::test_nothing_is_made_of_it_where_no_maps_are_wanted"),
    fault("extra maps are never made", "methods/base.py", "        if all_maps:\n", "        if False:\n",
          "test_grad_cam.py::test_it_is_evaluated_saved_and_shown"),

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
    fault("prediction reads files bilinearly", "evaluation/files.py", "[config.resize.upper()]", '["BILINEAR"]',
          "test_protocol.py::test_prediction_reads_files_with_the_rows_filter"),
    fault("digits' crops clamped, as a setting", "configs/datasets.py", '["redrawn", "clamped"] = "redrawn"',
          '["redrawn", "clamped"] = "clamped"', SETTINGS),
    fault("digits' crops that do not fit are the whole digit", "dataloader/digit.py",
          "sides[torch.arange(count), fitting.int().argmax(1)]", "sides[:, 0].clamp(max=side)",
          "test_data.py::test_crops_are_torchvisions"),
    fault("experiments of the first version see new digits", "dataloader/digit.py",
          'random_crops if self.config.digit_crop == "redrawn" else clamped_crops', "random_crops",
          "test_data.py::test_experiments_of_the_first_version_see_their_own_digits"),
    fault("digits' crops too small", "dataloader/digit.py", "AREA = (0.6, 1.3)", "AREA = (0.4, 1.3)",
          "test_data.py::test_crops_are_torchvisions"),
    fault("SimSID's CheXpert row without anomalous training images", "configs/simsid_chexpert.py",
          "train_normal_fraction = 0.9", "train_normal_fraction = 1.0", SETTINGS),
    fault("the first anomalous images, not drawn ones, as a setting", "configs/base.py",
          '["drawn", "first"] = "drawn"', '["drawn", "first"] = "first"', SETTINGS),
    fault("the first anomalous images always", "dataloader/base.py", 'config.contamination == "first"', "True",
          "test_contamination.py::test_the_choice_is_a_function_of_the_seed"),
    fault("drawn anomalous images always", "dataloader/base.py", 'config.contamination == "first"', "False",
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
    # -- datasets as they are downloaded
    fault("download: unlabeled lists must be there", "dataloader/medad.py",
          'train.get("unlabeled") or {"0": [], "1": []}', 'train["unlabeled"]',
          "test_medad.py::test_the_unlabeled_lists_are_needed_only_where_images_are_asked_of_them"),
    fault("download: unlabeled images that are asked for may be missing", "dataloader/medad.py",
          "if absent and not unlabeled and ", "if absent and ",
          "test_medad.py::test_unlabeled_images_that_are_not_there_matter_only_where_they_are_asked_for"),
    fault("download: folders by our names alone", "dataloader/base.py",
          "cls.folders.get(config.dataset, ())", "()", "test_medad.py::test_medianomalys_folders_are_found"),
    fault("download: a box's width is its right side", "tools/originals.py", "(x, y, x + width, y + height)",
          "(x, y, width, height)", "test_medad.py::test_boxes_are_an_images_own_in_corners"),
    fault("download: boxes are scaled by the other side", "tools/prepare_data.py", "np.array([*size, *size])",
          "np.array([*size, *size])[::-1]",
          "test_medad.py::test_an_original_download_is_prepared_trained_on_and_evaluated[vindr]"),
    fault("download: masks of no image", "dataloader/medad.py", "mask if mask.is_file() else None", "None",
          "test_medad.py::test_masks_are_of_the_images_of_their_names"),
    fault("download: COVIDx's test patients train", "tools/covidx_lists.py",
          "if entry.patient not in tested", "if True",
          "test_covidx.py::test_lists_are_made_by_patient"),
    fault("download: COVIDx's validation patients train", "tools/covidx_lists.py",
          "if e.patient not in held", "if True",
          "test_covidx.py::test_lists_are_made_by_patient"),
    fault("download: COVIDx's held-out patients go in part", "tools/covidx_lists.py", "if needed <= room:",
          "if any(room[label] for label in needed):",
          "test_covidx.py::test_no_more_are_held_out_than_the_test_list_has"),
    fault("download: PneumoniaMNIST trains on pneumonia", "dataloader/medmnist.py",
          'self._arrays["train"][0][self._training]', 'self._arrays["train"][0][: len(self._training)]',
          "test_medmnist.py::test_normal_images_train_and_both_classes_are_evaluated"),
    fault("download: PneumoniaMNIST is resized bilinearly", "dataloader/medmnist.py",
          "Image.Resampling[self.config.resize.upper()]", "Image.Resampling.BILINEAR",
          "test_medmnist.py::test_normal_images_train_and_both_classes_are_evaluated"),
    fault("download: every image repeats itself", "tools/check_data.py", "places < chunk.unsqueeze(1)",
          "places <= chunk.unsqueeze(1)", "test_check_data.py::test_counts_and_repeated_images"),
    fault("download: a person's images are in several folds", "tools/check_data.py",
          'picture.person or f"image {i}"', 'f"image {i}"',
          "test_check_data.py::test_splits_of_other_persons_are_not_told_apart_by_the_persons"),
    fault("download: smoothness across alone", "tools/check_data.py", "for dim in (2, 1)", "for dim in (2, 2)",
          "test_check_data.py::test_smoothness_by_hand"),
    fault("images are equally smooth in every pair", "tools/smoothness.py", "< WIDTH * normal.std()", "< np.inf",
          "test_smoothness.py::test_pairs_and_their_order_by_hand"),
    fault("smoothness' interval takes images for persons", "tools/smoothness.py", "metrics.draws(labels, persons,",
          "metrics.draws(labels, None,", "test_smoothness.py::test_the_interval_draws_persons"),
    fault("smoothness has the other sign", "tools/smoothness.py", "spearmanr(-step[labels == 0]",
          "spearmanr(step[labels == 0]", "test_smoothness.py::test_an_experiment_beside_smoothness"),
    fault("download: the AUC of brightness in one direction", "tools/check_data.py", "max(found, 1 - found)", "found",
          "test_check_data.py::test_what_is_no_anatomy"),

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
    fault("the labelled rule takes the worst", "tools/rules.py", "int(auc.argmax())", "int(auc.argmin())",
          "test_rules.py::test_what_each_rule_chooses_is_worked_out_by_hand"),
    fault("the tolerant rule counts from the highest of all", "tools/rules.py",
          "np.maximum.accumulate([-np.inf, *auc[:-1]])",
          "auc.max()", "test_rules.py::test_what_each_rule_chooses_is_worked_out_by_hand"),

    # -- remedies
    fault("cosine addressing of the query alone", "models/memory.py",
          "query, slots = (nn.functional.normalize(each, dim=-1) for each in (query, slots))",
          "query = nn.functional.normalize(query, dim=-1)",
          "test_remedies.py::test_cosine_addressing_goes_by_direction_alone"),
    fault("the penalty is not halved", "methods/squid.py", "config.r1_weight / 2", "config.r1_weight",
          "test_remedies.py::test_beside_the_discriminators_loss_is_half_the_weighted_penalty"),
    fault("dropped skips are not made up for", "models/generator.py", "kept)) / kept", "kept))",
          "test_remedies.py::test_a_dropped_skip_is_zero_and_a_kept_one_keeps_the_mean"),
    fault("skips are dropped in evaluation", "models/generator.py", "self.training and self.skip_dropout",
          "self.skip_dropout", "test_remedies.py::test_a_dropped_skip_is_zero_and_a_kept_one_keeps_the_mean"),

    # -- frozen features, PatchCore, GANomaly
    fault("frozen batch norm moves", "models/features.py", "return super().train(False)", "return super().train(mode)",
          FROZEN),
    fault("images are not normalised", "models/features.py", "(images - self.mean) / self.std",
          "images + 0 * self.mean",
          "test_patchcore.py::test_images_are_normalised_as_those_that_the_network_was_trained_on"),
    fault("the nearest row of the last part alone", "models/bank.py", "torch.cat([best, near], dim=1)",
          "near", "test_patchcore.py::test_the_nearest_row_is_found_through_all_parts_of_the_bank"),
    fault("the coreset takes the nearest", "models/bank.py", "farthest.argmax()", "farthest.argmin()",
          "test_patchcore.py::test_the_coreset_takes_the_farthest_from_its_picks_one_by_one"),
    fault("the score is the mean patch", "methods/patchcore.py", "distances.amax(1)", "distances.mean(1)",
          "test_patchcore.py::test_the_score_is_the_worst_patchs_before_the_map_is_blurred"),
    fault("PatchCore averages features that are not neighbours", "methods/patchcore.py",
          "unflatten(0, (count, -1)).mean(1)", "unflatten(0, (-1, count)).mean(0)",
          "test_patchcore.py::test_patches_are_the_means_that_are_published"),
    fault("PatchCore's bank is chosen among the features themselves", "methods/patchcore.py",
          "greedy_coreset(self.projected(candidates)", "greedy_coreset((candidates)",
          "test_patchcore.py::test_the_bank_is_chosen_in_a_random_projection_and_kept_as_it_is"),
    fault("a candidate is lost to rounding", "methods/patchcore.py",
          "seen * min(config.candidates, all_patches) // all_patches",
          "int(seen * min(1.0, config.candidates / all_patches))",
          "test_patchcore.py::test_a_bank_of_all_candidates_has_each_once"),
    fault("relu4_2 is taken before its ReLU", "models/features.py", '"relu4_2": "features.22"',
          '"relu4_2": "features.21"', "test_patchcore.py::test_relu4_2_is_behind_its_convolution_and_its_relu"),
    fault("the blur's border is reflected", "methods/maps.py", "2 * count - 1 - position", "2 * count - 2 - position",
          "test_patchcore.py::test_the_blur_is_scipys"),
    fault("last.pt keeps the frozen part", "training/loop.py", "method.without_frozen(method.state_dict())",
          "method.state_dict()",
          "test_patchcore.py::test_last_pt_goes_without_the_frozen_part_and_best_pt_needs_nothing_else"),
    fault("the generator learns from the discriminator's verdict", "methods/ganomaly.py", "self.seen(x), self.seen(out",
          "self.judged(x), self.judged(out", GANOMALY),
    fault("GANomaly's reconstruction is squared", "methods/ganomaly.py", "l1_loss(out.x_hat, x)",
          "mse_loss(out.x_hat, x)", GANOMALY),
    fault("GANomaly's decoder starts as PyTorch's layers do", "models/ganomaly.py",
          "isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))", "isinstance(module, nn.Conv2d)",
          "test_ganomaly.py::test_networks_are_dcgans_at_64_pixels"),
    fault("f-AnoGAN's kappa is taken to concern the GAN", "configs/fanogan.py",
          '                settings=("feature_weight",),\n', "",
          "test_fanogan.py::test_encoders_of_another_kappa_share_the_gan"),
    fault("GANomaly's discriminator wins by NaN", "methods/ganomaly.py", "bool(loss < self.config.redraw_below)",
          "not bool(loss >= self.config.redraw_below)", "test_ganomaly.py::test_a_loss_that_is_nan_is_no_win"),
    fault("GANomaly's discriminator is never drawn anew", "methods/ganomaly.py",
          "            draw_weights(self.discriminator)\n", "            pass\n",
          "test_ganomaly.py::test_a_discriminator_that_has_won_is_drawn_anew"),

    # -- RD4AD, M-KD
    fault("RD4AD always compares whole maps", "methods/rd4ad.py", 'if self.config.cosine == "map":', "if True:",
          "test_rd4ad.py::test_losses_are_worked_out_by_hand"),
    fault("RD4AD's decoder has ResNet's counts", "models/rd4ad.py", "DECODER_BLOCKS = (3, 4, 6)",
          "DECODER_BLOCKS = (6, 4, 3)", RD4AD_NETWORKS),
    fault("RD4AD's embedding is not halved", "models/rd4ad.py",
          "conv(c3, c3, 3, stride=2), conv(3 * c3, 2 * c3, 1, stride=2)", "conv(c3, c3, 3), conv(3 * c3, 2 * c3, 1)",
          RD4AD_NETWORKS),
    fault("RD4AD's maps are enlarged from pixel to pixel's middle", "methods/rd4ad.py", "align_corners=True",
          "align_corners=False", RD4AD_SCORE),
    fault("RD4AD's score is taken before the blur", "methods/rd4ad.py",
          "        distances = gaussian_blur(distances, self.config.blur)\n"
          '        return Scores(image={"distance": distances.amax((1, 2, 3)).cpu().double()}, '
          'maps={"distance": distances})',
          "        blurred = gaussian_blur(distances, self.config.blur)\n"
          '        return Scores(image={"distance": distances.amax((1, 2, 3)).cpu().double()}, '
          'maps={"distance": blurred})',
          RD4AD_SCORE),
    fault("RD4AD restores no negative values", "methods/rd4ad.py", "BACKBONES[config.backbone].rectified", "True",
          "test_rd4ad.py::test_what_is_restored_has_the_teachers_shapes_and_signs"),
    fault("M-KD scores layer1 too", "methods/mkd.py", "self.discrepancies(x, SCORED)",
          "self.discrepancies(x, self.config.layers)",
          "test_mkd.py::test_the_score_is_the_loss_of_the_three_deepest_layers"),
    fault("M-KD's student sees images as they are", "methods/mkd.py",
          "self.student((images - self.features.mean) / self.features.std)",
          "self.student(images.expand(-1, 3, -1, -1))", "test_mkd.py::test_losses_are_worked_out_by_hand"),
    fault("M-KD's values have no weight", "methods/mkd.py", "self.config.value_weight * value", "value",
          "test_mkd.py::test_losses_are_worked_out_by_hand"),
    fault("M-KD's gradient passes the teacher by", "methods/mkd.py", "teacher = self.features(images)",
          "teacher = self.features(images.detach())", "test_mkd.py::test_the_map_is_the_size_of_the_scores_slope"),
    fault("M-KD's map is closed", "methods/mkd.py", "eroded = -max_pool2d(-maps, size, 1, size // 2)\n"
          "    return max_pool2d(eroded, size, 1, size // 2)",
          "dilated = max_pool2d(maps, size, 1, size // 2)\n    return -max_pool2d(-dilated, size, 1, size // 2)",
          "test_mkd.py::test_the_opening_is_scipys"),
    fault("M-KD's student has a batch norm before its poolings", "models/mkd.py", "*layers[:-2]", "*layers[:-1]",
          "test_mkd.py::test_the_student_of_vgg16_is_the_published_one"),
    # -- f-AnoGAN
    fault("f-AnoGAN's critic has batch norm", "models/fanogan.py", "1, layer_norm)", "1, batch_norm)",
          "test_fanogan.py::test_the_critic_judges_every_image_alone_in_training_too",
          "test_fanogan.py::test_networks_are_the_published_ones_at_64_pixels"),
    fault("f-AnoGAN's blocks start as its shortcuts", "models/fanogan.py", "HE = 2**0.5", "HE = 1.0",
          "test_fanogan.py::test_weights_start_uniformly_with_heuristic_variances"),
    fault("f-AnoGAN's penalty is of all images together", "methods/fanogan.py", "gradient.flatten(1).norm(dim=1)",
          "gradient.norm()",
          "test_fanogan.py::test_the_penalty_is_of_each_image_at_its_own_place_between_real_and_fake", FANOGAN),
    fault("f-AnoGAN's generator steps before the critic's first five", "methods/fanogan.py",
          "(batch.step + 1) % config.n_critic", "batch.step % config.n_critic",
          "test_fanogan.py::test_the_generator_steps_every_fifth_time_and_only_then_moves_its_statistics"),
    fault("f-AnoGAN's statistics move in the critic's turn", "models/fanogan.py", "norm.momentum = 0.0", "pass",
          "test_fanogan.py::test_the_generator_steps_every_fifth_time_and_only_then_moves_its_statistics"),
    fault("f-AnoGAN's encoder moves the generator's statistics", "methods/fanogan.py",
          "        self.generator.eval()  # its running statistics are frozen, as all of it is\n", "",
          "test_fanogan.py::test_the_encoder_learns_and_leaves_all_of_the_gan_as_it_is"),
    fault("TensorFlow's RMSProp starts as PyTorch's", "methods/fanogan.py", "torch.ones_like(p)", "torch.zeros_like(p)",
          "test_fanogan.py::test_rmsprop_is_tensorflows"),
    fault("f-AnoGAN's score has no κ", "methods/fanogan.py", "reconstruction + self.config.feature_weight * features",
          "reconstruction + features",
          "test_fanogan.py::test_the_score_is_the_pixels_error_and_kappa_times_the_features"),
    # -- VAE, AE-PL, MemAE at SQUID's size
    fault("VAE scores a sample", "models/vae.py", " if self.training else mu", "",
          "test_vae.py::test_the_score_is_the_error_of_the_decoded_mean_and_repeats_to_the_bit"),
    fault("VAE's variance is its deviation", "models/vae.py", "(log_var / 2).exp()", "log_var.exp()", SAMPLES),
    fault("VAE's mean and variance exchanged", "models/vae.py", "mu, log_var = ", "log_var, mu = ", SAMPLES),
    fault("VAE's divergence is a sum over the latent", "methods/vae.py", ".mean(1) / 2", ".sum(1) / 2", DIVERGENCE),
    fault("VAE's gradients of the batch's mean", "methods/vae.py", "grad(loss.sum()", "grad(loss.mean()", GRADIENTS),
    fault("VAE's gradient is the error's alone", "methods/vae.py", " + self.config.kl_weight * apart", "", GRADIENTS),
    fault("an image left over makes a batch", "configs/stages.py", "else self.least", "else 1",
          "test_vae.py::test_a_last_batch_of_one_image_is_left_out_and_a_larger_one_is_not"),
    fault("every partial batch is left out", "dataloader/loader.py", "left_over < stage.smallest_batch",
          "left_over", "test_vae.py::test_a_last_batch_of_one_image_is_left_out_and_a_larger_one_is_not"),
    fault("AE-PL's features over their deviation", "methods/ae_pl.py", "- mean) / variance",
          "- mean) / variance.sqrt()", PERCEPTUAL),
    fault("AE-PL's loss is relative to the whole batch", "methods/ae_pl.py", "f.abs().mean((1, 2, 3), keepdim=True)",
          "f.abs().mean()", PERCEPTUAL),
    fault("AE-PL's reconstructions are clipped", "methods/ae_pl.py", "self.normalised((x_hat + 1) / 2)",
          "self.normalised(to_images(x_hat))", PERCEPTUAL),
    fault("AE-PL's variance has no floor", "methods/ae_pl.py",
          "variance.clamp(min=self.config.variance_floor * variance.mean())", "variance",
          "test_ae_pl.py::test_a_channel_that_hardly_varies_counts_as_if_it_varied_a_little"),
    fault("AE-PL's statistics are of the last batch", "methods/ae_pl.py", "total + f.sum((0, 2, 3)), squares + f",
          "f.sum((0, 2, 3)), f", "test_ae_pl.py::test_statistics_are_of_all_training_images_and_places"),
    fault("AE-PL's statistics are not kept", "methods/ae_pl.py",
          '"feature_variance", torch.ones(channels)', '"feature_variance", torch.ones(channels), persistent=False',
          "test_ae_pl.py::test_statistics_are_taken_once_and_stay_with_the_weights"),
    fault("MemAE's row at DDAD's size", "configs/memae_zhang.py", "image_size = 128", "image_size = 64", SETTINGS),
    fault("MemAE's hidden layer as VAE's", "configs/autoencoder.py", "hidden_size = 2048", "hidden_size = 1024",
          SETTINGS),
    # -- CutPaste, implicit field
    fault("a patch goes where it came from", "methods/cutpaste.py",
          "Cuts(size, draw_corners(size, side), draw_corners(box, side) + box / 2, angle)",
          "Cuts(size, box := draw_corners(size, side), box + size / 2, angle)",
          "test_cutpaste.py::test_patches_are_drawn_from_the_papers_ranges"),
    fault("scars are not scaled", "methods/cutpaste.py", "* side / SCAR_SIDE", "* 1", SCARS),
    fault("scars leave the image", "methods/cutpaste.py", "draw_corners(box, side) + box / 2",
          "draw_corners(size, side) + size / 2", SCARS),
    fault("the normal view is not jittered", "methods/cutpaste.py", "torch.cat([normal, patched, scarred])",
          "torch.cat([images, patched, scarred])",
          "test_cutpaste.py::test_views_are_a_function_of_the_seed_and_share_the_images_jitter"),
    fault("views are in another order than their classes", "methods/cutpaste.py",
          ".repeat_interleave(len(batch.images))", ".repeat(len(batch.images))",
          "test_cutpaste.py::test_a_step_classifies_all_views_in_one_forward"),
    fault("features keep their length", "methods/cutpaste.py", "normalize(z.to(images))", "z.to(images)",
          "test_cutpaste.py::test_scaled_features_have_the_same_density"),
    fault("the density is fitted in training mode", "methods/cutpaste.py", "        self.eval()\n",
          "        self.train()\n",
          "test_cutpaste.py::test_scores_are_of_features_of_length_one_in_evaluation_mode"),
    fault("the distance is squared", "models/density.py", ".clamp(min=0).sqrt()", ".clamp(min=0)",
          "test_cutpaste.py::test_densities_are_scikit_learns"),
    fault("places are between pixel corners", "models/implicit_field.py", "(2 * torch.arange(side) + 1) / side",
          "2 * torch.arange(side) / side",
          "test_implicit_field.py::test_places_are_sines_then_cosines_of_pixel_centres"),
    fault("codes go by their place in the batch", "methods/implicit_field.py", "self.codes(batch.indices)",
          "self.codes(torch.arange(len(batch.images)))", "test_implicit_field.py::test_losses_are_worked_out_by_hand"),
    fault("the prior is at its full weight at once", "methods/implicit_field.py", "config.prior_weight * grown",
          "config.prior_weight", "test_implicit_field.py::test_losses_are_worked_out_by_hand"),
    fault("codes grow without bound", "models/implicit_field.py", "        self.rows.renorm_(2, 0, MAX_NORM)\n",
          "        pass\n",
          "test_implicit_field.py::test_codes_are_drawn_once_for_every_training_image_and_kept_short"),
    fault("codes meet other images in every epoch", "dataloader/loader.py", "0 if stage.fixed else epoch", "epoch",
          "test_implicit_field.py::test_an_image_keeps_its_code_where_a_dataset_makes_new_images_every_epoch"),
    fault("the second phase of fitting goes on with the first's Adam", "methods/implicit_field.py",
          "optimizer = torch.optim.Adam([codes], config.fit_learning_rate)",
          "optimizer = locals().get('optimizer') or torch.optim.Adam([codes], config.fit_learning_rate)", FITTING),
    fault("fitting leaves gradients in the field", "methods/implicit_field.py", ".backward(inputs=[codes])",
          ".backward()",
          "test_implicit_field.py::test_fitting_lowers_what_is_unexplained_and_leaves_the_field_alone"),
    fault("the map takes the most of the neighbours", "methods/implicit_field.py", "-max_pool2d(-errors",
          "max_pool2d(errors",
          "test_implicit_field.py::test_the_map_is_the_least_of_neighbours_then_a_mean_and_the_score_its_mean"),
    # -- similarity, FAE-SSIM, IGD
    fault("similarity without the luminance", "models/ssim.py", "Similarity(luminance * contrast, contrast)",
          "Similarity(contrast, contrast)", "test_ssim.py::test_every_window_is_compared_as_the_formula_says"),
    fault("every scale counts as the coarsest", "models/ssim.py", "scale == scales - 1 else", "True else",
          "test_ssim.py::test_of_several_scales_the_contrasts_and_the_coarsest_whole_are_multiplied"),
    fault("a scale's negative similarity has a root", "models/ssim.py", ".clamp(min=LEAST)", "",
          "test_ssim.py::test_the_gradient_is_finite_where_structure_is_opposite_or_nowhere"),
    fault("FAE's features with unaligned corners", "methods/fae_ssim.py", "align_corners=True", "align_corners=False",
          "test_fae_ssim.py::test_features_are_the_stem_and_two_layers_on_the_stems_grid"),
    fault("FAE's similarity without a border", "methods/fae_ssim.py", "padding=config.window // 2", "padding=0",
          "test_fae_ssim.py::test_the_loss_is_worked_out_by_hand_and_the_backbone_stays"),
    fault("FAE's score is of the larger map", "methods/fae_ssim.py", "mean_of(found)", "mean_of(pixels)",
          "test_fae_ssim.py::test_the_score_is_the_mean_before_the_map_is_made_larger"),
    fault("FAE's top tenth of all pixels", "methods/fae_ssim.py", "values[chosen] if chosen.any()",
          "values.flatten() if True", "test_fae_ssim.py::test_the_top_tenth_is_of_the_foreground_alone"),
    fault("FAE's last step has no batch norm", "models/fae_ssim.py",
          "nn.ConvTranspose2d(before, after, 6, 2, 2, bias=False), *activation(after, dropout)",
          "nn.ConvTranspose2d(before, after, 6, 2, 2, bias=False)",
          "test_fae_ssim.py::test_the_network_is_the_published_one"),
    fault("IGD's critic is compared with all shares", "methods/igd.py", "alpha.squeeze(1)", "alpha", IGD_LOSSES),
    fault("IGD's shares are up to one", "methods/igd.py", "1).to(z) / 2", "1).to(z)", IGD_LOSSES),
    fault("IGD's sigma is taken around the old centre", "methods/igd.py", "2 * sums @ centre + counts * centre",
          "2 * sums @ part.centre.double() + counts * part.centre", IGD_CENTRE),
    fault("IGD's centre may be zero", "methods/igd.py", "mean.abs().clamp(min=self.config.least_centre)",
          "mean.abs()", IGD_CENTRE),
    fault("IGD's centre stays as at first", "methods/igd.py", "own % self.config.refresh_every == 0", "own == 0",
          "test_igd.py::test_they_are_taken_anew_every_ten_epochs_of_each_part"),
    fault("IGD's differences cancel out", "methods/igd.py", "(x_hat - images).abs().mean((1, 2, 3))",
          "(x_hat - images).mean((1, 2, 3))", "test_igd.py::test_an_error_is_absolute_and_of_images_in_zero_to_one"),
    fault("IGD's mean patch", "methods/igd.py", "patch.amax(1)", "patch.mean(1)",
          "test_igd.py::test_scores_are_worked_out_by_hand"),
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
    fault("PaDiM needs channels of every layer", "methods/padim.py", "if len(own):", "if True:", REPLICATED),
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
    fault("a shorter run counts as done", "tools/paper_table.py",
          '(found.get("epochs_trained") or 0) >= planned', "True",
          "test_batch.py::test_longer_training_is_missing"),
    fault("a table of some lines takes the others away", "tools/batch.py",
          " if row or (name, seed) in asked]", " if (name, seed) in asked]",
          "test_batch.py::test_only_what_is_missing_is_done_and_tabulated"),
    fault("a GPU shortens the moments of similarity", "models/ssim.py",
          "with full_products():  # variances", "if True:  # variances",
          "test_precision.py::test_differences_of_products_are_never_of_tf32"),
    fault("EfficientNet-Lite0 sees what ResNet sees", "models/features.py",
          "getattr(BACKBONES[backbone], name)", '{"mean": MEAN, "std": STD}[name]',
          "test_patchcore.py::test_images_are_normalised_as_those_that_the_network_was_trained_on"),
    fault("a bank is all of its candidates", "methods/patchcore.py", "if count > candidates:", "if False:",
          "test_patchcore.py::test_a_bank_larger_than_what_it_is_chosen_from_is_refused"),
    fault("long work is silent in a log", "system/progress.py", "now - spoke >= SILENCE", "False",
          "test_progress.py::test_long_work_speaks_once_a_minute_in_a_log"),
    fault("the checkpoint that was set is not evaluated", "commands/cli.py", "args.checkpoint or config.checkpoint",
          'args.checkpoint or "best"', "test_averaging.py::test_what_is_evaluated_is_a_setting"),
    fault("data are looked at once a dataset", "tools/batch.py",
          "(config.dataset, config.train_normal_fraction, config.contamination, config.unlabeled())", "config.dataset",
          "test_batch.py::test_images_that_are_missing_for_one_line_alone_are_said_before_anything_is_trained"),
    fault("what runs beside is not said", "tools/batch.py", "if self.running else", "if False else",
          "test_batch.py::test_what_becomes_of_one_is_said_while_another_runs"),
    fault("every line of a study has the method's published figure", "tools/paper_table.py",
          'lines[group[0]["method"]] > 1 and', "False and",
          "test_batch.py::test_the_published_figure_stands_beside_that_line_of_a_study_alone_that_is_the_method"),
    fault("a main score of its own takes all scores' columns", "tools/paper_table.py",
          'frozenset(row["scores"]) for row in rows', '(row["score"], *row["scores"]) for row in rows',
          "test_batch.py::test_other_scores_have_columns_where_all_lines_have_them"),
    fault("an ensemble without refinement is measured by one with it", "tools/make_tables.py",
          ", *named_settings(entry)])", "])",
          "test_make_tables.py::test_ours_is_measured_by_a_target_where_it_is_the_published_run"),
    fault("a table of some lines does not name the others", "tools/batch.py", "rows, left_out,", "rows, (),",
          "test_batch.py::test_only_what_is_missing_is_done_and_tabulated"),
    fault("what the first version trained counts as done", "tools/paper_table.py",
          "experiment.is_older() or found", "found",
          "test_batch.py::test_what_the_first_version_trained_does_not_count"),
    fault("a table mixes in other settings", "tools/paper_table.py",
          '    asked["settings"] = changed_settings(found["config"], config)\n', "",
          "test_batch.py::test_only_what_is_missing_is_done_and_tabulated"),
    fault("a run without its folder leaves the table", "tools/batch.py",
          "row = kept.get(planned.experiment.name)", "row = None", KEPT),
    fault("a run that was kept counts for other settings", "tools/batch.py",
          " if row and paper_table.is_as_asked(row, planned.config) else", " if row else", KEPT),
    fault("runs are kept as the table rounds them", "tools/make_tables.py",
          "cell(row[key])", "cell(round(row[key], 3) if key == 'auc' else row[key])", KEPT),
    fault("what was trained while a configuration was another counts", "tools/paper_table.py",
          """asked_for | (found["configuration"] or {}) != asked_for""", "False",
          "test_batch.py::test_what_was_trained_while_the_configuration_was_another_does_not_count"),
    fault("what one line alone sets is handed on to another", "tools/batch.py", "planned.config_name and set_in_both",
          "planned.config_name", "test_batch.py::test_what_one_line_alone_sets_is_not_handed_on_to_another"),
    fault("what another command evaluates is evaluated beside it", "tools/batch.py",
          """(self.in_work, self.experiment.path(".lock"))""", """(self.experiment.path(".lock"),)""",
          "test_batch.py::test_what_another_command_evaluates_is_left_to_it"),
    fault("what goes on has more threads than it had", "tools/batch.py", "work = len(chains(plan))",
          "work = len(self.waiting)", "test_batch.py::test_as_many_places_as_there_is_work_for"),
    fault("a closed terminal ends a run unsaved", "system/signals.py", "handlers[HANGUP] = on_hangup", "pass",
          "test_resume.py::test_a_closed_terminal_saves_and_stops"),
    fault("output that was closed from the start ends the run", "system/signals.py", "suppress(OSError)", "suppress()",
          "test_resume.py::test_output_that_was_closed_from_the_start_is_no_matter_when_the_terminal_closes"),
    fault("validation's deviation is the test images'", "tools/rules.py", "deviation(val_auc)", "deviation(test_auc)",
          "test_rules.py::test_the_table_is_of_the_recorded_scores"),
    fault("what is printed to a closed terminal ends the run", "system/signals.py",
          "            leave_terminal()\n", "",
          "test_resume.py::test_a_closed_terminal_saves_and_stops"),
    fault("a run that goes on with other threads does not say so", "training/loop.py",
          "if self.global_step and before:", "if False:",
          "test_resume.py::test_a_run_that_goes_on_with_other_threads_says_so"),
    fault("two scores of the same trainings are drawn apart", "tools/compare.py",
          "[[seed, trainings.index(experiments)] for experiments in trainings]",
          "[[seed, i] for i in range(len(trainings))]",
          "test_compare.py::test_two_scores_of_the_same_trainings_are_drawn_with_the_same_trainings"),
    fault("digits of other crops are compared", "tools/compare.py", "if crops[0] != crops[1]:", "if False:",
          "test_compare.py::test_digits_that_were_cropped_otherwise_are_other_images"),
    fault("seeds of a configuration that changed are a group", "tools/compare.py",
          "if first.config and each.config else []", "if False else []",
          "test_compare.py::test_seeds_of_a_configuration_that_changed_between_them_are_no_group"),
    fault("within an epoch p-values are those of the one before", "predict.py",
          "if is_within_epoch(trained.checkpoint):", "if False:",
          "test_normals.py::test_weights_of_within_an_epoch_have_no_p_values"),
    fault("an experiment that is named twice counts twice", "tools/make_tables.py", "dict.fromkeys(args.experiments)",
          "args.experiments", "test_make_tables.py::test_an_experiment_that_is_named_twice_counts_once"),
    fault("threads add up the neighbours' gradient in any order", "models/inpaint.py",
          ".index_select(1, self.neighbours.flatten())", "[:, self.neighbours.flatten()]",
          "test_fast.py::test_the_neighbours_gradient_is_the_same_on_several_threads"),
    fault("uncompressed TIFF is mapped by the size it has when turned", "dataloader/images.py",
          'with open(path, "rb") as file, Image.open(file) as image:', "with Image.open(path) as image:",
          "test_data.py::test_a_tiff_file_is_turned_as_it_is_looked_at"),
    fault("twelve bits are dark", "dataloader/images.py", "if 8 < bits < 16:", "if False:",
          "test_data.py::test_twelve_bits_are_scaled_by_their_own_range"),
    fault("masks of dark colours are none", "dataloader/images.py", "(rgba[..., :3].max(-1) > 0)",
          "(rgba[..., :3].mean(-1) >= 2)", "test_folder.py::test_a_mask_of_the_darkest_colours_is_what_is_not_black"),
    fault("a quotation mark that is not closed takes the lines after it", "dataloader/layouts.py", ", strict=True)",
          ")", "test_folder.py::test_what_is_no_list_or_not_there"),
    fault("Brain Tumor's equal names of two parts are one", "tools/originals.py", "if of_class[name, path.name] > 1:",
          "if False:", "test_medad.py::test_equal_names_in_training_and_testing_stay_apart"),
    fault("COVIDx lists an image as two things", "dataloader/covidx.py", "        items = listed_once(items)\n", "",
          "test_covidx.py::test_what_is_listed_as_two_things_is_named"),
    fault("one's own images are known by name and size alone", "dataloader/folder.py",
          'f"{super().described(item)} {self._sampled[item.path]}"', "super().described(item)",
          "test_folder.py::test_the_fingerprint_knows_what_files_of_equal_names_and_sizes_hold"),
    fault("an older fingerprint of one's own images is refused", "dataloader/folder.py", " or recorded == before", "",
          "test_folder.py::test_what_was_trained_before_the_fingerprint_knew_contents_goes_on"),
    fault("a name that is no text ends the run where ids are written", "dataloader/base.py",
          "            require_utf8(item.path)\n", "            pass\n",
          "test_data.py::test_a_name_that_is_no_text_is_refused"),
    fault("$ in a kind's name is taken for a formula", "evaluation/plots.py",
          "axes[r, 0].set_title(caption, fontsize=9, parse_math=False)", "axes[r, 0].set_title(caption, fontsize=9)",
          "test_folder.py::test_a_kind_may_be_called_as_no_formula_is"),
    fault("unreadable files are named after pictures are written", "predict.py", "    for failure in failed:\n",
          "    for failure in []:\n", "test_predict.py::test_unreadable_files_are_named_before_pictures_are"),
    fault("a DICOM file that is cut off ends the run", "dataloader/dicom.py",
          "except Exception as error:  # of a damaged", "except OSError as error:  # of a damaged",
          "test_folder.py::test_a_dicom_file_that_is_cut_off_is_named"),
    fault("ZhangLab's persons are held out in part", "dataloader/zhang.py", "item.person or item.path", "item.path",
          "test_data.py::test_all_images_of_a_person_are_held_out_of_zhanglab_or_none"),
    fault("a job array is told the table's axis", "tools/batch.py", "_, given = own_parser().parse_known_args()",
          "given = sys.argv[5:]",
          "test_batch.py::test_commands_and_the_job_array_are_printed"),
    fault("steadying's influence looks for data elsewhere", "scripts/steadying.sh",
          '--data-root=* | --device=*) where+=', '--device=*) where+=',
          "test_batch.py::test_figures_come_after_the_experiments"),
    fault("histograms mix seeds", "scripts/ddad_backbones.sh",
          """[ "${experiment##*_s}" != "$seed" ] || shown+=""", "shown+=",
          "test_batch.py::test_figures_come_after_the_experiments"),
    fault("a dry run draws figures", "scripts/side_by_side.sh", """ | *" --dry-run "*""", "",
          "test_batch.py::test_figures_come_after_the_experiments"),
    fault("equal settings are trained twice", "tools/batch.py", "first.setdefault(of_settings, planned.experiment)",
          "planned.experiment",
          "test_batch.py::test_lines_of_the_same_settings_share_an_experiment_and_are_points_of_curves"),
    fault("anomaly rates do not share the normative module", "tools/batch.py",
          "plan[i] = replace(planned, source=earlier",
          "replace(planned, source=earlier", LATER_STAGE),
    fault("an ensemble's networks count as their last one", "tools/paper_table.py",
          "{name: statistics.mean(of) for", "{name: of[-1] for", LATER_STAGE),
    fault("a stage is taken over from an experiment that is not trained yet", "tools/batch.py",
          "planned.can_share)", "True)", "test_batch.py::test_a_stage_is_shared_once_it_is_trained"),
    fault("a stage with frozen parts cannot be repeated", "training/repeat.py", "own | taken |", "taken |",
          "test_resume.py::test_the_last_stage_repeated_ends_as_it_did"),
    fault("what other images trained is taken over", "main.py",
          "if trained_on != IMPORTED:", "if False:",
          "test_ddad.py::test_what_other_images_trained_is_not_taken_over"),
    fault("stages that share their length are made longer", "experiments/settings.py",
          'return "" if shared or', 'return "" if',
          "test_ddad.py::test_where_stages_share_their_length_none_is_made_longer"),
    fault("PatchCore's deeper patches are those of the nearest place", "methods/patchcore.py",
          'mode="bilinear", align_corners=False', 'mode="nearest"',
          "test_patchcore.py::test_patches_are_the_means_that_are_published"),
    fault("what a later stage does is taken to concern earlier ones", "training/repeat.py",
          "for each in later for setting in each.settings}", "for each in later for setting in ()}",
          "test_ddad.py::test_another_anomaly_rate_shares_the_normative_module_and_ends_as_if_trained_alone"),
    fault("without refinement its random nets score", "methods/ddad.py", " if config.refine_epochs else ()", "",
          "test_ddad.py::test_without_refinement_it_is_ddad_as_of_miccai"),
    fault("a table leaves the diseases out", "tools/paper_table.py", '"kind": kinds | diseases', '"kind": kinds',
          "test_diseases.py::test_a_table_in_one_evaluation"),
    fault("a curve's deviation is of the mean", "tools/paper_figure.py", "statistics.stdev(of) if",
          "statistics.stdev(of) / 2 if",
          "test_batch.py::test_a_panel_shows_mean_deviation_and_every_seed"),
    fault("a figure of several methods does not say what its values are", "tools/paper_figure.py", "name or axis",
          "name", "test_batch.py::test_a_figure_says_what_its_values_are"),
    fault("places do not share the queue", "models/inpaint.py", "self.locations if space_aware else 1",
          "self.locations",
          "test_components.py::test_the_shared_queue_takes_the_features_of_all_places"),
    fault("the decoder's memories stay space-aware", "methods/squid.py",
          '{"space_aware": self.config.space_aware}', "{}",
          "test_components.py::test_without_a_part_the_others_are_there_and_train"),
    fault("contaminated digits are all normal", "dataloader/digit.py", "for i in range(anomalous)]",
          "for i in range(0)]",
          "test_contamination.py::test_anomalous_digits_take_the_place_of_the_last_normal_ones"),
    fault("another checkpoint's evaluation counts as done", "tools/paper_table.py",
          '"checkpoint": config.checkpoint, ', "",
          "test_batch.py::test_an_evaluation_of_something_else_is_made_anew"),
    fault("a batch goes on after a failure", "tools/batch.py", 
          "            if self.failed:\n                return False\n", "",
          "test_batch.py::test_after_a_failure_nothing_begins_and_the_table_names_the_holes"),
    fault("the difference is the published figure less ours", "tools/paper_table.py",
          'f"{difference:+.1f}"', 'f"{-difference:+.1f}"',
          "test_batch.py::test_the_difference_is_that_of_the_mean_over_the_seeds"),
    fault("a run of fewer epochs is measured by the published figure", "tools/make_tables.py",
          'row["stages_trained"] == row["stages_planned"] == as_published', "True",
          "test_make_tables.py::test_ours_is_measured_by_a_target_where_it_is_the_published_run"),
    fault("bfloat16 and float32 are averaged", "tools/make_tables.py", '"checkpoint", "trained_precision", "precision"',
          '"checkpoint", "precision"', "test_make_tables.py::test_what_is_not_alike_is_not_averaged"),
    fault("the same seed counts twice", "tools/make_tables.py",
          'row["experiment"] == other["experiment"] or row["seed"] != other["seed"]', "True",
          "test_make_tables.py::test_what_is_not_alike_is_not_averaged"),
    fault("agreement: equal scores are ranked in the images' order", "tools/rules.py", "rankdata(scores, axis=1)",
          "scores.argsort(1).argsort(1) + 1.0",
          "test_rules.py::test_equal_scores_agree_with_nothing_in_whatever_order_the_images_come"),
    fault("a repetition deletes before it can start", "main.py",
          "            log = from_source(trainer, Experiment(args.source), args, pretrained)\n",
          "            experiment.clear() if args.overwrite else None\n"
          "            log = from_source(trainer, Experiment(args.source), args, pretrained)\n",
          "test_ddad.py::test_a_repetition_that_cannot_start_deletes_nothing"),
    fault("a 16-bit TIFF of which 0 is white is read as its negative", "dataloader/images.py",
          "65535 - pixels if", "pixels if", "test_data.py::test_every_mode_becomes_gray_of_the_right_brightness"),
    fault("a batch trains every seed with the first", "tools/batch.py", '"--seed", str(self.seed)', '"--seed", "0"',
          "test_batch.py::test_only_what_is_missing_is_done_and_tabulated"),
    # -- comparison
    fault("compared scores are drawn apart", "evaluation/comparison.py",
          "[ranking.figures(times) for ranking in rankings]",
          "[ranking.figures(np.roll(times, i)) for i, ranking in enumerate(rankings)]", PAIRED,
          "test_compare.py::test_samples_are_those_of_the_evaluations_interval"),
    fault("DeLong's placements go by plain ranks", "evaluation/comparison.py",
          "rankdata(scores[own])", 'rankdata(scores[own], "ordinal")', DELONG),
    fault("a person with images of both classes is drawn as two", "evaluation/metrics.py",
          "strata = (has[0] & ~has[1], has[1] & ~has[0], has[0] & has[1])", "strata = (labels == 0, labels == 1)",
          "test_metrics.py::test_a_person_is_drawn_with_the_images_of_both_classes"),
    fault("a person with images of both classes counts as two in DeLong's test", "evaluation/comparison.py",
          "+ 2 * count / (count - 1) * (sums[0] @ sums[1])", "",
          "test_compare.py::test_persons_with_images_of_both_classes_are_one"),
    fault("Holm's p falls below an earlier one", "evaluation/comparison.py", "np.maximum.accumulate(",
          "np.asarray(", "test_compare.py::test_holms_correction_is_worked_out_by_hand"),
    fault("a histogram's images are in each file's own order", "tools/histograms.py", "in_order_of(first, found)",
          "found.scores", "test_histograms.py::test_a_row_for_every_score_and_a_panel_for_every_experiment"),
    fault("compared images are in each file's own order", "tools/compare.py",
          "other.scores[[place[image] for image in first.images]]", "other.scores",
          "test_compare.py::test_images_in_another_order_are_aligned_by_their_ids"),
    fault("seeds of a compared group are not drawn", "evaluation/comparison.py",
          "rng.integers(len(values), size=values.shape)", "np.indices(values.shape)[0]", SEED_GROUPS,
          "test_compare.py::test_seeds_are_drawn_anew_for_every_sample"),
    # -- held-out normal images
    fault("the threshold of normals is the k-th highest itself", "evaluation/normals.py",
          "np.nextafter(np.partition(normals, n - k)[n - k], np.inf)", "np.partition(normals, n - k)[n - k]",
          P_THRESHOLD),
    fault("the rank of the threshold of normals is of n images", "evaluation/normals.py",
          "np.arange(1, n + 1) / (n + 1)", "np.arange(1, n + 1) / n", P_THRESHOLD),
    fault("p-values leave out normal images that score the same", "evaluation/normals.py", 'side="left"',
          'side="right"', "test_normals.py::test_p_values_are_worked_out_by_hand", P_THRESHOLD),
    fault("anomalous validation images are among the held-out normal ones", "eval.py",
          "scored.selected(val.labels.numpy() == 0)", "scored.selected(val.labels.numpy() >= 0)",
          "test_normals.py::test_predict_takes_the_threshold_that_eval_took"),
    fault("normals.json of another checkpoint is taken", "evaluation/normals.py",
          "scores if found == (checkpoint, epoch, precision) else None", "scores",
          "test_normals.py::test_what_is_kept_is_of_these_weights_alone"),
    fault("the threshold of normals is judged on them", "eval.py",
          'held_out if evaluated == "test" and same_data else None', "held_out if same_data else None",
          "test_normals.py::test_held_out_images_of_med_ad_give_a_threshold"),
    fault("predict.py's false alarms are always 5 %", "predict.py", "kept[main_score], args.false_alarms)",
          "kept[main_score], normals.FALSE_ALARMS)",
          "test_normals.py::test_predict_takes_the_threshold_that_eval_took"),
    fault("held-out Med-AD images are trained on", "dataloader/medad.py", 'items["train"], items["val"] = hold_out',
          '_, items["val"] = hold_out',
          "test_normals.py::test_of_med_ad_normal_training_images_can_be_held_out"),
    fault("held-out images change a Med-AD fingerprint where there are none", "configs/datasets.py",
          "held_out: float = 0.0", "held_out: float = 0.2", SETTINGS,
          "test_normals.py::test_without_held_out_images_a_med_ad_fingerprint_is_what_it_was"),
    # -- localisation
    fault("AUPRO weighs regions by their size", "evaluation/localisation.py", "1 / sizes[numbers[mask]]", "1",
          "test_localisation.py::test_figures_are_worked_out_by_hand"),
    fault("AUPRO is integrated over all false positives", "evaluation/localisation.py", "MOST_FALSE = 0.3",
          "MOST_FALSE = 1.0", AUPRO),
    fault("AUPRO's last step is taken whole", "evaluation/localisation.py",
          "np.interp(most, fpr[end - 1 : end + 1], overlap[end - 1 : end + 1])", "overlap[end]", AUPRO),
    fault("pixels of one value are thresholds of their own", "evaluation/localisation.py",
          "np.append(values[1:] != values[:-1], True)", "np.append(values[1:] == values[1:], True)", AUPRO),
    # -- one's own images
    fault("own images: held out by a draw that a new file changes", "dataloader/held_out.py",
          'key=lambda name: digest(["held out", name])', 'key=lambda name: digest(["held out", name, *persons])',
          "test_folder.py::test_what_is_held_out_is_stable_and_no_matter_of_the_seed"),
    fault("own images: a person is in two splits", "dataloader/held_out.py", "persons[item.person or name_of(item)]",
          "persons[name_of(item)]", "test_folder.py::test_a_person_is_never_in_two_splits"),
    fault("own images: masks by order", "dataloader/layouts.py", "masks.setdefault(key, file)",
          "masks.setdefault(sorted(names - masks.keys())[-1], file)",
          "test_folder.py::test_splits_and_classes_with_masks_by_name"),
    fault("own images: dark masks are none", "dataloader/images.py", "marked = np.asarray(image) > 0",
          "marked = np.asarray(image) > 127", "test_folder.py::test_masks_beside_the_images"),
    fault("own images: padding is part of what a DICOM file spans", "dataloader/dicom.py",
          "inside = np.ones(pixels.shape, bool) if raw else", "inside = np.ones(pixels.shape, bool) if True else",
          "test_folder.py::test_dicom_files_are_read_beside_others"),
    fault("own images: an anomalous class trains", "dataloader/folder.py",
          "if item.label and not anomalous_training:", "if False:",
          "test_bad_inputs.py::test_a_wrong_folder_is_refused"),
    fault("own images: images without a mask count as normal pixels", "evaluation/localisation.py",
          "(labels == 0) | split.masks.flatten(1).any(1).numpy()", "labels >= 0",
          "test_folder.py::test_pixel_figures_are_of_the_images_with_masks"),
    fault("own images: predict.py stretches always", "evaluation/files.py", ", config.fit)", ', "stretch")',
          "test_folder.py::test_predict_reads_as_the_experiment_did"),
    fault("colours become gray", "dataloader/base.py", "colour=in_colour(config)", "colour=False",
          "test_colour.py::test_anomalies_of_colour_alone_are_seen_in_colour_alone"),
    fault("predict.py reads gray", "evaluation/files.py", "colour = in_colour(config)", "colour = False",
          "test_colour.py::test_anomalies_of_colour_alone_are_seen_in_colour_alone"),
    fault("blue for red", "dataloader/images.py", ".transpose(2, 0, 1)", ".transpose(2, 0, 1)[::-1].copy()",
          "test_colour.py::test_files_keep_their_colours"),
    fault("kept images: gray ones are taken for colours", "dataloader/images.py", "resize, fit, colour])",
          "resize, fit])",
          "test_colour.py::test_what_is_kept_in_colour_is_not_taken_for_gray"),
    # -- pages to look at
    fault("page: another evaluation's strips remain", "evaluation/page.py",
          "shutil.rmtree(experiment.path(STRIPS), ignore_errors=True)", "experiment.path(STRIPS)", EARLIER),
    fault("page: another evaluation's figures remain", "evaluation/report.py", '.png").unlink(missing_ok=True)',
          '.png").exists()', EARLIER),
    fault("the results of an evaluation stay beside the scores of one that was cut", "evaluation/report.py",
          '("results.json", "index.html", ', "(",
          "test_page.py::test_neither_page_nor_results_stay_of_an_evaluation_before_one_that_was_cut"),
    fault("page: a name can end the script", "evaluation/page.py", '.replace("<", r"\\u003c")', "",
          "test_page.py::test_names_are_shown_as_they_are_whatever_they_hold"),
    fault("page: an image is compared with another's reconstruction", "evaluation/page.py",
          "difference(images[i], x_hats[i])", "difference(images[i], x_hats[i - 1])", STRIPS),
    fault("page: maps are normalized image by image", "evaluation/page.py", "heat(maps[i], shown)",
          "heat(maps[i], plots.scale(maps[i]))", STRIPS),
    fault("page: a mask hides what it marks", "evaluation/plots.py", "(mask & ~inside)", "mask", STRIPS),
    fault("page: reconstructions beyond black and white wrap around", "system/device.py", "(images.clamp(0, 1) * 255)",
          "(images * 255)", "test_page.py::test_reconstructions_are_kept_as_bytes_where_they_are_asked_for"),
    fault("page: three histograms at most", "evaluation/plots.py", "-(-len(scores) // across)", "1",
          "test_page.py::test_every_figure_is_shown_and_every_score_has_a_histogram"),
    fault("page of results: a | within a cell begins another", "tools/results_page.py", r"(?<!\\)\|", r"\|", TABLES),
    fault("page of results: what a cell holds is taken for HTML", "tools/results_page.py",
          "</em>\", html.escape(part))", "</em>\", part)", TABLES),
    fault("page of results: CSV files without a table are not linked", "tools/results_page.py",
          "if path.stem not in names]", "if path.stem in names]", TABLES),

    # -- pictures and maps of one's own images
    fault("maps are laid over pad's margins", "dataloader/images.py", ".astype(np.float32)).crop(shown)",
          ".astype(np.float32))", UNFITTED),
    fault("maps of a crop lie in the corner", "dataloader/images.py",
          "left, top = (width - covered[0]) // 2, (height - covered[1]) // 2", "left, top = 0, 0", UNFITTED),
    fault("maps are normalized image by image", "evaluation/pictures.py",
          '"heat": plots.colours(heat, scales[score])', '"heat": plots.colours(heat, plots.scale(pixels))',
          "test_predict.py::test_all_pictures_of_a_run_have_one_scale"),
    fault("an overlay hides the image", "evaluation/plots.py", "opacity = OPAQUE * brightness",
          "opacity = 1 + 0 * brightness", "test_predict.py::test_colours_and_overlays_worked_out_by_hand"),
    fault("of equal names the later picture stays", "evaluation/files.py", 'free(name.with_suffix(""), taken)',
          'name.with_suffix("")', "test_predict.py::test_equal_names_get_numbers"),
    fault("pictures get others' captions", "predict.py", "{path: told.of(i)",
          "{path: told.of(-1 - i)",
          "test_predict.py::test_pictures_say_the_score_and_the_verdict"),
    fault("a screen of the lowest scores", "evaluation/verdicts.py", "np.argsort(-self.scores",
          "np.argsort(self.scores",
          "test_predict.py::test_the_screen_lists_the_highest_with_verdicts"),
    fault("contrast is no sign of an unfamiliar image", "dataloader/familiar.py",
          "np.stack([means, deviations, correlations]", "np.stack([means, means, correlations]",
          "test_predict.py::test_looks_worked_out_by_hand"),
    fault("the layout is no sign of an unfamiliar image", "dataloader/familiar.py",
          "np.stack([means, deviations, correlations]", "np.stack([means, deviations, 0 * correlations]",
          "test_predict.py::test_looks_worked_out_by_hand"),
    fault("a palette's numbers are gray levels", "dataloader/dicom.py",
          'if meaning not in ("MONOCHROME1", "MONOCHROME2"):', "if False:",
          "test_predict.py::test_nested_dicom_files_of_every_photometric_interpretation"),
    # -- what is kept of reading, and repeated images
    fault("kept images: a change of the same size is not noticed", "dataloader/cache.py",
          "{stat.st_mtime_ns} ", "0 ", CHANGED),
    fault("kept images: a change at the same time is not noticed", "dataloader/cache.py",
          'f"{stat.st_size} ', 'f"0 ', CHANGED),
    fault("kept images: another path's image of the same size and time", "dataloader/cache.py",
          "{os.path.abspath(path)}", "/", SECOND_START),
    fault("kept images: other filters' images are taken", "dataloader/images.py",
          "(root), what, size, resize, fit,", "(root), what, size, fit,", OTHER_SETTINGS),
    fault("kept images: of another aspect are taken", "dataloader/images.py",
          "(root), what, size, resize, fit,", "(root), what, size, resize,", OTHER_SETTINGS),
    fault("kept images: another version's are taken", "dataloader/cache.py",
          'if index["reader"] != self.reader:', "if False:",
          "test_cache.py::test_another_reader_or_root_finds_nothing"),
    fault("kept images: those that another list asked for are lost", "dataloader/cache.py",
          "if mark not in asked and mark == mark_of(path_of(mark)):", "if False:",
          "test_cache.py::test_lists_that_share_files_keep_what_each_of_them_needs"),
    fault("kept images: those of removed files stay for ever", "dataloader/cache.py",
          "and mark == mark_of(path_of(mark)):", "and mark:",
          "test_cache.py::test_new_files_are_decoded_and_removed_ones_forgotten"),
    fault("kept images: an image twice in a list is filled in once", "dataloader/cache.py",
          "for row in wanted.pop(mark, ()):", "for row in wanted.pop(mark, ())[:1]:",
          "test_cache.py::test_lists_that_share_files_keep_what_each_of_them_needs"),
    fault("kept images: what was filled in before damage shows is kept", "dataloader/cache.py",
          "            return list(range(len(marks)))\n", "",
          "test_cache.py::test_a_damaged_file_is_made_anew_with_a_note"),
    fault("repeated images: validation images are left out", "dataloader/base.py",
          'if split != "test" for item in items]', 'if split in ("train", "unlabeled") for item in items]', REPEATED),
    fault("repeated images: unlabeled images are left out", "dataloader/base.py",
          'if split != "test" for item in items]', 'if split in ("train", "val") for item in items]', REPEATED),
    fault("repeated images: the last part of the references alone counts", "dataloader/duplicates.py",
          "highest = torch.maximum(highest, (rows @ standardised(chunk).T).amax(1))",
          "highest = (rows @ standardised(chunk).T).amax(1)",
          "test_duplicates.py::test_near_is_a_correlation_above_the_rule_worked_out_by_hand"),
    fault("repeated images: where there are none the figures stand twice", "evaluation/report.py",
          "if duplicates and len(set(labels[kept])) == 2:", "if len(set(labels[kept])) == 2:",
          "test_duplicates.py::test_without_repeated_images_there_is_one_line_and_no_second_row"),
    fault("progress: a line after every batch", "training/progress.py", "if now - self.spoke < SILENCE:", "if False:",
          "test_progress.py::test_an_epoch_speaks_once_a_minute_and_a_short_one_never"),
    fault("progress: a resumed epoch counts batches of before", "training/progress.py", "(batch - self.first)", "batch",
          "test_progress.py::test_a_resumed_epoch_is_timed_from_where_it_went_on"),
    fault("progress: what is left is of all stages", "training/progress.py", "self.ends[self.stage] - self.epoch - 1",
          "self.ends[self.stages[-1]] - self.epoch - 1",
          "test_progress.py::test_what_is_left_is_of_the_stage_and_by_the_median_of_whole_epochs"),
    fault("progress: the seconds of a log with times left are not read", "training/repeat.py", "s(?:,|$)", "s$",
          "test_progress.py::test_a_stage_repeated_counts_the_seconds_of_all_epochs_before_it"),
    fault("a try trains all epochs of later stages", "configs/__init__.py",
          "{stage.epochs_key: 1 for stage in stages}", '{"epochs": 1}',
          "test_progress.py::test_a_try_shortens_every_stage_of_every_configuration"),
    fault("bad input: a table is written over an image", "predict.py",
          "args.csv.resolve() in {path.resolve() for path in names}", "False",
          "test_bad_inputs.py::test_predict_refuses_wrong_paths"),
    fault("bad input: too little memory is a traceback", "commands/cli.py", "if not out_of_memory(error):", "if True:",
          "test_bad_inputs.py::test_too_little_memory_is_said"),
    fault("bad input: rows of metrics.jsonl after a broken one are lost", "experiments/folder.py",
          "if number == len(lines):", "if True:", "test_bad_inputs.py::test_a_damaged_metrics_file_is_refused"),
    fault("bad input: digits are trained on in place of one's own images", "dataloader/digit.py",
          'config.digit_source == "auto" and not idx_parts(root)', "False",
          "test_bad_inputs.py::test_ones_own_images_are_told_where_they_belong"),
    fault("bad input: another batch size is named", "configs/ddad.py", 'batch_key="refine_batch_size"',
          'batch_key="batch_size"', "test_medad.py::test_fewer_images_than_a_batch"),
    # -- the notebook
    fault("notebook: an option that predict.py does not have", "notebook.ipynb", "--csv ", "--table ",
          "test_notebook.py::test_its_commands_can_be_parsed"),
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
