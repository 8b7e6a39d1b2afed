"""The sizes of the demo model: a Moondream2 in small, about 3.2 million parameters."""

from workflow_blocks.moondream2.config import (
    CaptionTemplates,
    Moondream2Config,
    PromptTemplate,
    RegionConfig,
    Templates,
    TextConfig,
    TokenizerConfig,
    VisionConfig,
)

VISION_WIDTH = 160
WIDTH = 128

DEMO_CONFIG = Moondream2Config(
    vision=VisionConfig(
        enc_dim=VISION_WIDTH,
        enc_patch_size=8,
        enc_n_layers=4,
        enc_ff_dim=4 * VISION_WIDTH,
        enc_n_heads=5,
        proj_out_dim=WIDTH,
        crop_size=96,
        max_crops=6,
        overlap_margin=2,
        proj_inner_dim=512,
    ),
    text=TextConfig(
        dim=WIDTH, ff_dim=4 * WIDTH, n_layers=4, vocab_size=704, max_context=2048, n_heads=4, n_kv_heads=4
    ),
    region=RegionConfig(
        dim=WIDTH,
        coord_feat_dim=64,
        coord_out_dim=1024,
        size_feat_dim=128,
        size_out_dim=1024,
        inner_dim=256,
    ),
    # The ids are those of `training.tokenizer.RESERVED`.
    tokenizer=TokenizerConfig(
        templates=Templates(
            detect=PromptTemplate(prefix=(1, 10, 2), suffix=(3,)),
            point=PromptTemplate(prefix=(1, 11, 2), suffix=(3,)),
            query=PromptTemplate(prefix=(1, 12, 2), suffix=(3,)),
            caption=CaptionTemplates(
                short=(1, 13, 2, 14, 3), normal=(1, 13, 2, 15, 3), long=(1, 13, 2, 16, 3)
            ),
        )
    ),
)
