// The including instruction set's kernels, as QUANT_KERNELS over QUANT_LAYOUT.
const CpuKernels QUANT_KERNELS = {
    &QUANT_LAYOUT,
    lanes,
    row_tile,
    weight_tiles,
    direct_rows,
    block_cols * sizeof(float),
    code_bias,
    prepare_int8,
    prepare_s8,
    prepare_f32,
    prepare_e4m3,
    {linear_int8, tiles_together_int8, scratch_int8},
    {linear_s8, tiles_together_int8, scratch_s8},
    {linear_decoded<FloatProduct>, tiles_together_decoded<FloatProduct>, scratch_decoded<FloatProduct>},
    rmsnorm,
    silu_mul,
    add,
    quantize_s8,
    quantize_e4m3,
    rope,
    to_f16,
    head_s8,
    head_e4m3,
    attention,
    scratch_attention};
#undef QUANT_KERNELS
#undef QUANT_LAYOUT
