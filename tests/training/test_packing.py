import numpy as np
import pytest
import torch

from training.demo_config import DEMO_CONFIG
from training.initial_weights import initialise_decoder
from training.losses import attention_loss, decode_packed, embed_packed
from training.packing import PADDING, SIZE, TOKEN, WORD, X, Y, pack, pack_picture
from training.pictures import Item
from training.tasks import TaskMaker
from training.tokenizer import make_tokenizer
from workflow_blocks.moondream2.model import Moondream2
from workflow_blocks.moondream2.prompt_tokens import Prompts
from workflow_blocks.moondream2.rows import KeyValues, Rows

ITEMS = (
    Item("dog", "brown", frozenset(), (0.6, 0.1, 0.8, 0.3)),
    Item("star", "red", frozenset(), (0.1, 0.5, 0.2, 0.7)),
    Item("dog", None, frozenset(), (0.3, 0.3, 0.5, 0.6)),
)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def make_packed(tokenizer):
    maker = TaskMaker(Prompts(DEMO_CONFIG, tokenizer), tokenizer)

    def make(seed):
        rng = np.random.default_rng(seed)
        tasks = maker.tasks(rng, ITEMS)
        return tasks, pack([pack_picture(rng, ITEMS, tasks, DEMO_CONFIG)])

    return make


def test_a_packed_task_gives_the_same_as_alone(make_packed):
    torch.manual_seed(0)
    model = Moondream2(DEMO_CONFIG)
    initialise_decoder(model)
    _, packed = make_packed(0)
    with torch.no_grad():
        prefix = torch.randn(1, DEMO_CONFIG.prefix_length, DEMO_CONFIG.text.dim)
        seen = model.text.read_prefix(prefix)
        kept = [KeyValues.of(heads[0], DEMO_CONFIG.text.n_kv_heads) for heads in seen]
        embeddings = embed_packed(model, packed)
        together, _ = decode_packed(model.text, embeddings, packed, seen)
        for task in range(int(packed.task.max()) + 1):
            own = packed.task == task
            rows = Rows(DEMO_CONFIG.text, [kept], [1], own.sum(dim=1))
            alone = model.text(embeddings[:, own[0]], rows)
            torch.testing.assert_close(together[own], alone[0], atol=1e-4, rtol=1e-4)


def test_objects_are_asked_for_from_left_to_right_and_then_the_end(make_packed):
    numbers = set()
    for seed in range(20):
        tasks, packed = make_packed(seed)
        for index, task in enumerate(tasks):
            if task.skill == "text":
                continue
            steps = [X, Y, SIZE] if task.skill == "detect" else [X, Y]
            own = packed.task[0] == index
            kinds, asks, looks_at = (of[0][own] for of in (packed.kinds, packed.asks, packed.looks_at))
            numbers.add((task.skill, len(task.found)))
            assert kinds[kinds != TOKEN].tolist() == steps * len(task.found)
            assert asks[asks != PADDING].tolist() == steps * len(task.found) + [X]
            assert looks_at[asks != PADDING][-1] == 0
            xs = packed.answers[0][own][(asks == X) & (looks_at > 0)][:, 0].tolist()
            assert xs == sorted(xs)
    assert {("detect", n) for n in (0, 1, 2, 3)} <= numbers
    assert {("point", 0), ("point", 2)} <= numbers


def test_coordinates_are_predicted_before_they_are_read(make_packed):
    n_read = 0
    for seed in range(3):
        tasks, packed = make_packed(seed)
        for index, task in enumerate(tasks):
            if task.skill == "text":
                continue
            own = packed.task[0] == index
            answers, values = packed.answers[0][own], packed.values[0][own]
            kinds = packed.kinds[0][own]
            for place in (kinds == X).nonzero().flatten().tolist():
                assert abs(answers[place - 1][0] - values[place][0]) < 0.05  # up to the noise
                n_read += 1
    assert n_read >= 5


def test_every_word_of_an_answer_is_predicted_and_then_the_end(make_packed):
    for seed in range(5):
        tasks, packed = make_packed(seed)
        for index, task in enumerate(tasks):
            if task.skill != "text":
                continue
            own = packed.task[0] == index
            asks, answers, tokens = (of[0][own] for of in (packed.asks, packed.answers, packed.tokens))
            predicted = answers[asks == WORD][:, 0].long().tolist()
            assert predicted == [*task.answer, DEMO_CONFIG.tokenizer.eos_id]
            assert tokens[len(task.prompt) :].tolist() == list(task.answer)
            assert asks[: len(task.prompt) - 1].eq(PADDING).all()


def test_references_are_embedded_as_coordinates_and_sizes(make_packed):
    _, packed = make_packed(1)
    asked = 0
    for seed in range(10):
        tasks, packed = make_packed(seed)
        for index, task in enumerate(tasks):
            own = packed.task[0] == index
            for place, value in task.prompt.coordinates:
                assert packed.kinds[0][own][place] == X
                assert packed.values[0][own][place][0] == pytest.approx(value)
                asked += 1
            for place, width, height in task.prompt.sizes:
                assert packed.kinds[0][own][place] == SIZE
                assert packed.values[0][own][place].tolist() == pytest.approx([width, height])
    assert asked > 10


def test_the_attention_loss_is_least_when_heads_look_at_what_is_asked_about(make_packed):
    _, packed = make_packed(2)
    cells = torch.zeros(1, DEMO_CONFIG.vision.n_patches, dtype=torch.long)
    cells[0, :10], cells[0, 10:30], cells[0, 30:40] = 1, 2, 3
    shape = (1, 2, packed.kinds.shape[1], DEMO_CONFIG.prefix_length)
    right = torch.zeros(shape)
    for token, bits in enumerate(packed.looks_at[0].clamp(min=0).tolist()):
        meant = torch.tensor([bool(bits >> (cell - 1) & 1) if cell else False for cell in cells[0].tolist()])
        target = torch.cat((torch.tensor([bits == 0]), meant)).float()
        right[0, :, token] = target / target.sum()
    evenly = torch.full(shape, 1 / DEMO_CONFIG.prefix_length)

    assert attention_loss(right, cells, packed) == pytest.approx(0, abs=1e-4)
    assert attention_loss(evenly, cells, packed) > 1
