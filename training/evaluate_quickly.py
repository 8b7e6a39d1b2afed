"""A few figures on pictures kept aside, for the log of a training run; `training.evaluate` measures all."""

from collections.abc import Sequence

from training.batches import Batches, CropBatch
from training.evaluate_answers import add_counts, evaluate_answers
from training.evaluate_things import evaluate_things, pictures_kept_aside
from training.icons import Drawings
from training.tokenizer import make_tokenizer
from training.trainee import Trainee
from workflow_blocks.moondream2.runtime import Runtime

# Groups of pictures that `training.evaluate` does not use.
_SEED, _GROUP = 7, 20
_N_CROPS, _N_PICTURES = 192, 30


def figures_of_crops(trainee: Trainee, styles: Sequence[Drawings], share: float = 1.0) -> dict[str, float]:
    """How many patches of crops the encoder names rightly; `share` of the crops are looked at."""
    device = trainee.model.text.wte.device
    batch = Batches(styles, 0, _share_of(_N_CROPS, share), of_crops=True, seed=_SEED)[0]
    assert isinstance(batch, CropBatch)
    objects, background = trainee.patch_accuracy(batch.to(device))
    return {"patches of objects": objects, "patches of background": background}


def figures_of_pictures(trainee: Trainee, styles: Sequence[Drawings], share: float = 1.0) -> dict[str, float]:
    """Figures of every task, through the real runtime; `share` of the pictures are looked at."""
    runtime = Runtime(trainee.model, make_tokenizer())
    pictures = list(pictures_kept_aside(styles, _share_of(_N_PICTURES, share), group=_GROUP))
    things, answers = evaluate_things(runtime, pictures), evaluate_answers(runtime, pictures)
    add_counts(answers, runtime, pictures)
    return {
        "mAP@50": float(things.all.compute().map50),
        "false alarms": things.absent_names.value,
        "false alarms, near misses": things.hard_prompts.value,
        "points found": things.point_recall.value,
        "points right": things.point_precision.value,
        "yes or no": answers.yes_no.value,
        "name of a box": answers.name.value,
        "colour of a box": answers.colour.value,
        "list, F1": answers.listed.value,
        "counts": answers.count_accuracy,
    }


def _share_of(count: int, share: float) -> int:
    return max(1, round(count * min(share, 1)))
