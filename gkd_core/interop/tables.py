r"""The authors' names and ours, as data.

Stage one's come from the released code's golden values and from Proteus, on which it is built; stage two's from the public
source of mmdetection's Mask2Former head (3.x, and 2.x, which has `attentions` and `ffns` in place of `self_attn`, `cross_attn`
and `ffn`). Ours are timm's for the backbone, transformers' for Mask2Former.
"""

from __future__ import annotations

from gkd_core.interop.names import Aside, Rule, only_row, thirds

# A backbone in DINOv2's naming (a DeiT student has it too) to an `Encoder`. With block_chunks, blocks are `blocks.CHUNK.INDEX`,
# the index counting through all chunks.
VIT = (
    Rule(r"mask_token", ("mask_token",), only_row),
    Rule(r"blocks\.(?:\d+\.)?(\d+)\.(?!attn\.rope\.freqs_)([a-z].*)", (r"backbone.blocks.\1.\2",)),
    Rule(r"(cls_token|pos_embed|patch_embed\.proj\..+|norm\..+)", (r"backbone.\1",)),
)

# EVA-02's own naming where it is not timm's. Its large models have separate projections, its small ones a packed one. timm has
# the final norm behind its pooling.
EVA = (
    Rule(r"norm\.(.+)", (r"backbone.fc_norm.\1",)),
    Rule(r"blocks\.(\d+)\.mlp\.ffn_ln\.(.+)", (r"backbone.blocks.\1.mlp.norm.\2",)),
    Rule(r"blocks\.(\d+)\.attn\.inner_attn_ln\.(.+)", (r"backbone.blocks.\1.attn.norm.\2",)),
    Rule(r"blocks\.(\d+)\.mlp\.w12\.(.+)", (r"backbone.blocks.\1.mlp.fc1.\2",)),
    Rule(r"blocks\.(\d+)\.mlp\.w1\.(.+)", (r"backbone.blocks.\1.mlp.fc1_g.\2",)),
    Rule(r"blocks\.(\d+)\.mlp\.w2\.(.+)", (r"backbone.blocks.\1.mlp.fc1_x.\2",)),
    Rule(r"blocks\.(\d+)\.mlp\.w3\.(.+)", (r"backbone.blocks.\1.mlp.fc2.\2",)),
)
EVA_SEPARATE = (Rule(r"blocks\.(\d+)\.attn\.([qv])_bias", (r"backbone.blocks.\1.attn.\2_proj.bias",)), *EVA)

# The three heads of `QSDObjective`.
HEADS = (Rule(r"(token|fea|patch)_head\.(proj_[qv]\.[01]\.(?:weight|bias))", (r"\1.\2",)),)

# mmdetection's head to `Mask2FormerDecoder`. Levels run from coarse to fine on both sides.
PIXEL_DECODER = (
    Rule(r"input_convs\.(\d)\.conv\.(.+)", (r"input_projections.\1.0.\2",)),
    Rule(r"input_convs\.(\d)\.gn\.(.+)", (r"input_projections.\1.1.\2",)),
    Rule(
        r"encoder\.layers\.(\d+)\.(?:self_attn|attentions\.0)\.(sampling_offsets|attention_weights|value_proj|output_proj)\.(.+)",
        (r"encoder.layers.\1.self_attn.\2.\3",),
    ),
    Rule(r"encoder\.layers\.(\d+)\.(?:ffn|ffns\.0)\.layers\.0\.0\.(.+)", (r"encoder.layers.\1.fc1.\2",)),
    Rule(r"encoder\.layers\.(\d+)\.(?:ffn|ffns\.0)\.layers\.1\.(.+)", (r"encoder.layers.\1.fc2.\2",)),
    Rule(r"encoder\.layers\.(\d+)\.norms\.0\.(.+)", (r"encoder.layers.\1.self_attn_layer_norm.\2",)),
    Rule(r"encoder\.layers\.(\d+)\.norms\.1\.(.+)", (r"encoder.layers.\1.final_layer_norm.\2",)),
    Rule(r"level_encoding\.weight", ("level_embed",)),
    Rule(r"lateral_convs\.0\.conv\.(.+)", (r"adapter_1.0.\1",)),
    Rule(r"lateral_convs\.0\.gn\.(.+)", (r"adapter_1.1.\1",)),
    Rule(r"output_convs\.0\.conv\.(.+)", (r"layer_1.0.\1",)),
    Rule(r"output_convs\.0\.gn\.(.+)", (r"layer_1.1.\1",)),
    Rule(r"mask_feature\.(.+)", (r"mask_projection.\1",)),
)
TRANSFORMER = (
    Rule(r"layers\.(\d+)\.(?:cross_attn|attentions\.0)\.attn\.(.+)", (r"decoder.layers.\1.cross_attn.\2",)),
    Rule(
        r"layers\.(\d+)\.(?:self_attn|attentions\.1)\.attn\.in_proj_(weight|bias)",
        tuple(rf"decoder.layers.\1.self_attn.{part}_proj.\2" for part in "qkv"),
        thirds,
    ),
    Rule(r"layers\.(\d+)\.(?:self_attn|attentions\.1)\.attn\.out_proj\.(.+)", (r"decoder.layers.\1.self_attn.out_proj.\2",)),
    Rule(r"layers\.(\d+)\.(?:ffn|ffns\.0)\.layers\.0\.0\.(.+)", (r"decoder.layers.\1.fc1.\2",)),
    Rule(r"layers\.(\d+)\.(?:ffn|ffns\.0)\.layers\.1\.(.+)", (r"decoder.layers.\1.fc2.\2",)),
    Rule(r"layers\.(\d+)\.norms\.0\.(.+)", (r"decoder.layers.\1.cross_attn_layer_norm.\2",)),
    Rule(r"layers\.(\d+)\.norms\.1\.(.+)", (r"decoder.layers.\1.self_attn_layer_norm.\2",)),
    Rule(r"layers\.(\d+)\.norms\.2\.(.+)", (r"decoder.layers.\1.final_layer_norm.\2",)),
    Rule(r"post_norm\.(.+)", (r"decoder.layernorm.\1",)),
)
QUERIES = (
    Rule(r"query_embed\.(.+)", (r"transformer.queries_embedder.\1",)),
    Rule(r"query_feat\.(.+)", (r"transformer.queries_features.\1",)),
    Rule(r"level_embed\.(.+)", (r"transformer.level_embed.\1",)),
    Rule(r"cls_embed\.(.+)", (r"classifier.\1",)),
    Rule(r"mask_embed\.0\.(.+)", (r"transformer.decoder.mask_predictor.mask_embedder.0.0.\1",)),
    Rule(r"mask_embed\.2\.(.+)", (r"transformer.decoder.mask_predictor.mask_embedder.1.0.\1",)),
    Rule(r"mask_embed\.4\.(.+)", (r"transformer.decoder.mask_predictor.mask_embedder.2.0.\1",)),
)

ASIDES = (
    Aside(r"teacher\..*", "the teacher, which has weights of its own"),
    Aside(r"(?:student\.)?backbone\.head(?:_dist)?\..*", "a classifier, which features do not pass"),
    Aside(r"(?:student\.)?backbone\.(?:.*\.)?rope\.freqs_(?:cos|sin)", "rotations, which are computed"),
)
