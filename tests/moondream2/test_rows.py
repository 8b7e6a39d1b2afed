import pytest
import torch

from workflow_blocks.moondream2.config import TextConfig
from workflow_blocks.moondream2.rows import ROOM_STEP, KeyValues, Rows
from workflow_blocks.moondream2.text import Text

CONFIG = TextConfig(dim=64, ff_dim=96, n_layers=2, vocab_size=50, n_heads=4, n_kv_heads=2)


@pytest.fixture(scope="module")
def text():
    """A small decoder whose queries share keys and values."""
    torch.manual_seed(0)
    text = Text(CONFIG)
    torch.nn.init.normal_(text.wte)
    return text.eval().requires_grad_(False)


def prefixes(text, count, length=5):
    heads = text.read_prefix(torch.randn(count, length, CONFIG.dim))
    return [[KeyValues.of(layer[i], CONFIG.n_kv_heads) for layer in heads] for i in range(count)]


def read_alone(text, prefix, tokens):
    """The states of one row that reads its tokens one by one."""
    rows = Rows(CONFIG, [prefix], [1], torch.tensor([len(tokens)]))
    return torch.cat([text(text.embed(torch.tensor([[token]])), rows)[0] for token in tokens])


def test_rows_together_give_the_same_as_alone(text):
    of_images = prefixes(text, 2)
    tokens = [[3, 1, 4], [1, 5], [9, 2, 6, 5], [3]]
    longest = max(map(len, tokens))
    padded = torch.tensor([[0] * (longest - len(row)) + row for row in tokens])

    rows = Rows(CONFIG, of_images, [1, 3], torch.tensor([len(row) for row in tokens]))
    states = text(text.embed(padded), rows)

    for row, own in enumerate(tokens):
        alone = read_alone(text, of_images[min(row, 1)], own)
        torch.testing.assert_close(states[row, longest - len(own) :], alone)


@pytest.mark.parametrize("kept", [[0, 1, 2, 3], [0], [2, 3], [0, 3], [1, 2]])
def test_remaining_rows_do_not_change_when_others_end(text, kept):
    of_images = prefixes(text, 2)
    tokens = torch.tensor([[3, 1], [4, 1], [5, 9], [2, 6]])
    rows = Rows(CONFIG, of_images, [2, 2], torch.full((4,), 2))
    text(text.embed(tokens), rows)

    rows.keep(torch.tensor(kept))
    states = text(text.embed(tokens[kept][:, :1]), rows)

    for state, row in zip(states, kept, strict=True):
        own = [*tokens[row].tolist(), tokens[row, 0].item()]
        torch.testing.assert_close(state, read_alone(text, of_images[row // 2], own)[-1:])


def test_rows_that_end_one_after_another_copy_the_others_rarely(text):
    of_images = prefixes(text, 3)
    torch.manual_seed(1)
    tokens = torch.randint(0, 50, (9, 40))
    rows = Rows(CONFIG, of_images, [4, 2, 3], torch.ones(9, dtype=torch.long))
    alive, copies = list(range(9)), 0

    for step in range(40):
        states = text(text.embed(tokens[alive][:, step : step + 1]), rows)
        for state, row in zip(states, alive, strict=True):
            image = of_images[0 if row < 4 else 1 if row < 6 else 2]
            torch.testing.assert_close(state, read_alone(text, image, tokens[row, : step + 1].tolist())[-1:])
        if step % 4 == 3 and len(alive) > 1:
            ended = (7 * step) % len(alive)
            stay = [place for place in range(len(alive)) if place != ended]
            before = rows.nbytes
            rows.keep(torch.tensor(stay))
            copies += rows.nbytes < before
            alive = [alive[place] for place in stay]

    assert len(alive) == 1
    # When as many places are empty as are not; and when the rows grow.
    assert copies <= 3


def test_rows_that_grow_leave_out_those_that_ended(text):
    (prefix,) = prefixes(text, 1)
    rows = Rows(CONFIG, [prefix], [4], torch.full((4,), 2))
    text(text.embed(torch.ones(4, 2, dtype=torch.long)), rows)
    of_four = rows.nbytes
    rows.keep(torch.tensor([0, 1, 3]))

    text(text.embed(torch.ones(3, ROOM_STEP, dtype=torch.long)), rows)

    assert rows.nbytes == 2 * of_four * 3 // 4


def test_rows_are_repeated_after_others_ended(text):
    of_images = prefixes(text, 2)
    tokens = torch.tensor([[3, 1], [4, 1], [5, 9], [2, 6], [8, 8]])
    rows = Rows(CONFIG, of_images, [3, 2], torch.full((5,), 2))
    text(text.embed(tokens), rows)

    rows.keep(torch.tensor([0, 2, 4]))
    rows.repeat([2, 1, 2])
    states = text(text.embed(torch.tensor([[1], [2], [3], [4], [5]])), rows)

    for state, row, last in zip(states, [0, 0, 2, 4, 4], range(1, 6), strict=True):
        alone = read_alone(text, of_images[row // 3], [*tokens[row].tolist(), last])
        torch.testing.assert_close(state, alone[-1:])


def test_rows_grow(text):
    (prefix,) = prefixes(text, 1)
    tokens = torch.randint(0, 50, (80,)).tolist()

    states = read_alone(text, prefix, tokens)

    rows = Rows(CONFIG, [prefix], [1], torch.tensor([80]))
    torch.testing.assert_close(text(text.embed(torch.tensor([tokens])), rows)[0], states)


def test_rows_do_not_hold_a_copy_of_the_prefix(text):
    (prefix,) = prefixes(text, 1, length=1000)
    rows = Rows(CONFIG, [prefix], [8], torch.full((8,), 3))

    text(text.embed(torch.ones(8, 3, dtype=torch.long)), rows)

    assert rows.nbytes < sum(tensor.nbytes for layer in prefix for tensor in layer)
