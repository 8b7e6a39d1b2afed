"""Makes the demo model's tokenizer: byte-level BPE, so that any text has tokens."""

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from training.prompts import Question, random_wording
from training.scenes import COLOURS, SHAPES

# As in the released model, ids 0 to 9 are reserved; 10 opens the prompt of a detection.
_RESERVED = ["<|endoftext|>", *(f"<|md_reserved_{i}|>" for i in range(9)), "<|detect|>"]


def make_tokenizer(vocab_size: int) -> Tokenizer:
    """Learns merges from prompts like those of the training."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_RESERVED,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    rng = np.random.default_rng(0)
    questions = [Question(colour, shape) for colour in (None, *COLOURS) for shape in (None, *SHAPES)]
    prompts = [" " + random_wording(rng, question) for question in questions * 40]
    senseless = [" " + random_wording(rng, Question(impossible=True)) for _ in range(300)]
    tokenizer.train_from_iterator(prompts + senseless, trainer)
    return tokenizer
