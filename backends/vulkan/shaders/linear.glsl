// The push constants of every linear kernel: some tiles of a weight times rows of an input.
layout(push_constant, std430) uniform Push {
    Ints row_count;
    Uint4s weight;  // its first tile here
    Float4s input_aligned;  // the same address as the next two
    Uints row_scales;       // RowScale of an input of codes
    Floats result, residual, bias;
    uint rows, first_row;  // weight rows here, and the result's column of the first
    uint cols, input_stride, result_stride, residual_stride;
    uint tile_chunks, row_chunks;       // 16 bytes
    uint parameters_at, parameter_words;  // in a tile, of a row; 4 bytes
    float zero;                         // constant zero point
    uint flags;                         // 1 = residual, 2 = bias
    uvec2 parameters_address;           // of an expanded weight: scale and offset of every row
    Float4s gains;                      // of a folded rmsnorm
    float eps;
};
const uint HAS_RESIDUAL = 1, HAS_BIAS = 2;

uint chunk_at(uint row) {
    return (row >> 3) * tile_chunks + (row & 7u) * row_chunks;
}
uint parameter_at(uint row) {
    return (row >> 3) * tile_chunks * 4u + parameters_at + (row & 7u) * parameter_words;
}

// Where a result goes, with what is added to it.
void store(uint input_row, uint row, float y) {
    uint column = first_row + row;
    precise float sum = y;
    if ((flags & HAS_BIAS) != 0u) sum += bias.at[column];
    if ((flags & HAS_RESIDUAL) != 0u) sum += residual.at[input_row * residual_stride + column];
    result.at[input_row * result_stride + column] = sum;
}
