"""Makes the demo model's tokenizer: every word of the training is a token, other words are read byte by byte.

A word has the same token at the start of a text as after a space, so that it is learned once.
"""

from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from training import prompts, tasks, words
from training.colours import COLOUR_WORDS
from training.names import KINDS, NAMES

# As in the released model, ids 0 to 9 are reserved; those that follow open the prompts of the skills.
RESERVED = (
    "<|endoftext|>", *(f"<|md_reserved_{i}|>" for i in range(9)),
    "<|detect|>", "<|point|>", "<|query|>", "<|caption|>", "<|short|>", "<|normal|>", "<|long|>",
)  # fmt: skip


def make_tokenizer() -> Tokenizer:
    """The tokenizer of everything that training asks and answers."""
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=True)
    vocabulary = dict.fromkeys((*RESERVED, *sorted(pre_tokenizers.ByteLevel.alphabet())))
    for text in _texts():
        vocabulary.update(dict.fromkeys(piece for piece, _ in pieces.pre_tokenize_str(text)))
    ids = {token: index for index, token in enumerate(vocabulary)}
    # Without merges: a piece is a token of its own or is read byte by byte.
    tokenizer = Tokenizer(models.BPE(ids, [], ignore_merges=True))
    tokenizer.add_special_tokens(list(RESERVED))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"^\s+"), "")]
    )
    tokenizer.pre_tokenizer = pieces
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    return tokenizer


def _texts() -> Iterator[str]:
    for noun in (*NAMES, *KINDS, words.ANYTHING, words.ANY_SHAPE):
        for pair in words.wordings_of(noun):
            yield from pair
    yield from COLOUR_WORDS
    yield from prompts.ARTICLES
    yield "an coloured colored that are is and of"
    for questions in (
        tasks.LIST_QUESTIONS, tasks.COUNT_QUESTIONS, tasks.IS_THERE_QUESTIONS, tasks.ARE_THERE_QUESTIONS,
        tasks.NAME_QUESTIONS, tasks.COLOUR_QUESTIONS, tasks.IS_THIS_QUESTIONS,
    ):  # fmt: skip
        for question in questions:
            # Braces stand for a noun.
            yield from question.split("{}")
    yield from tasks.NUMBERS
    yield "yes no nothing a picture of . ,"
    for row in tasks._PLACES:
        yield from row
    yield from (str(number) for number in range(10))
    yield "image photo left right above below top bottom big small other or not"
