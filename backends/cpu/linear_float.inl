// Float products: float and e4m3 weights, and any quantized weight decoded in registers, exactly as THE decode does.
// Included inside an unnamed namespace after linear_int8.inl.
//
// One output is a chain of fused multiply-adds over the columns in order, for any number of rows and threads.

void prepare_f32(const float* in, int64_t stride, int64_t cols, int blocks, int first_row, int rows, uint8_t* to) {
    float* out = reinterpret_cast<float*>(to);  // [column][row]
    const int64_t padded = static_cast<int64_t>(blocks) * block_cols;
    for (int c = 0; c < rows; ++c) {
        const float* row = in + (first_row + c) * stride;
        for (int64_t k = 0; k < cols; ++k) out[k * rows + c] = row[k];
        for (int64_t k = cols; k < padded; ++k) out[k * rows + c] = 0;
    }
}

void prepare_e4m3(const uint8_t* codes, int64_t stride, int blocks, int first_row, int rows, uint8_t* to) {
    float* out = reinterpret_cast<float*>(to);
    for (int c = 0; c < rows; ++c) {
        const uint8_t* row = codes + (first_row + c) * stride;
        for (int64_t k = 0; k < static_cast<int64_t>(blocks) * block_cols; k += lanes) {
            float values[lanes];
            Simd::store(values, Simd::load_e4m3(row + k));
            for (int i = 0; i < lanes; ++i) out[(k + i) * rows + c] = values[i];
        }
    }
}

// ---- Decoding columns of a tile
// -----------------------------------------------------------------------------------------

struct GroupDecode {
    Float scale, zero, minimum;
};

// Column K of a block as float, for `lanes` rows.
template <Element E, bool Minimum, int K>
QUANT_INLINE Float decode_column(const uint8_t* block, const GroupDecode& g) {
    if constexpr (E == Element::f32) {
        return Simd::load(reinterpret_cast<const float*>(block) + K * lanes);
    } else if constexpr (E == Element::f16) {
        return Simd::load_f16(block + 2 * K * lanes);
    } else if constexpr (E == Element::bf16) {
        return Simd::load_bf16(block + 2 * K * lanes);
    } else if constexpr (E == Element::e4m3) {
        return Simd::mul(Simd::load_e4m3(block + K * lanes), g.scale);
    } else {
        constexpr int bits = E == Element::u4 ? 4 : E == Element::u5 ? 5 : E == Element::u6 ? 6 : 8;
        const Float code = Simd::column<K % 4>(load_step<bits, K / 4>(block));
        const Float w = Simd::mul(Simd::sub(code, g.zero), g.scale);
        return Minimum ? Simd::add(w, g.minimum) : w;
    }
}

using DecodeBlock = void (*)(const uint8_t* block, const GroupDecode (&groups)[2], float* to);

// [column][lanes]; groups: of the block's two halves.
template <Element E, bool Minimum>
void decode_block(const uint8_t* block, const GroupDecode (&groups)[2], float* to) {
    unrolled<block_cols>([&](auto k) QUANT_INLINE_LAMBDA {
        Simd::store(to + k * lanes, decode_column<E, Minimum, decltype(k)::value>(block, groups[k / 16]));
    });
}

DecodeBlock decode_block_of(const TileShape& t) {
    const bool minimum = t.header == HeaderKind::minimum || t.header == HeaderKind::nested_u6;
    switch (t.element) {
        case Element::f32:
            return decode_block<Element::f32, false>;
        case Element::f16:
            return decode_block<Element::f16, false>;
        case Element::bf16:
            return decode_block<Element::bf16, false>;
        case Element::e4m3:
            return decode_block<Element::e4m3, false>;
        case Element::u4:
            return minimum ? decode_block<Element::u4, true> : decode_block<Element::u4, false>;
        case Element::u5:
            return minimum ? decode_block<Element::u5, true> : decode_block<Element::u5, false>;
        case Element::u6:
            return minimum ? decode_block<Element::u6, true> : decode_block<Element::u6, false>;
        default:
            return minimum ? decode_block<Element::u8, true> : decode_block<Element::u8, false>;  // and s8
    }
}

// Reads the blocks of one tile in order.
struct TileReader {
    const TileShape& t;
    const uint8_t* tile;
    DecodeBlock decode;
    GroupDecode groups[2];

    GroupDecode group_at(int b, int half) const {
        GroupDecode d{Simd::set(1), Simd::set(static_cast<float>(t.zero)), Simd::set(0)};
        if (t.header == HeaderKind::none) return d;
        const int group = (2 * b + half) / t.group_halves;
        const GroupScale s = load_scale(t, panel_at(t, tile, group / t.panel_groups), group % t.panel_groups);
        d.scale = s.scale;
        if (t.header == HeaderKind::integer)
            d.zero = Simd::add(d.zero, s.offset);
        else
            d.minimum = s.offset;
        return d;
    }
    // Block b as floats: where they are, or decoded to `to`. `first`: of this reader's blocks.
    QUANT_INLINE const float* read(int b, bool first, float* to) {
        const uint8_t* block =
            panel_at(t, tile, b / t.panel_blocks) + t.header_bytes + b % t.panel_blocks * t.block_bytes;
        if (t.element == Element::f32) return reinterpret_cast<const float*>(block);
        if (first || 2 * b % t.group_halves == 0) {
            groups[0] = group_at(b, 0);
            groups[1] = t.group_halves == 1 ? group_at(b, 1) : groups[0];
        }
        decode(block, groups, to);
        return to;
    }
};

// ---- One row: several weight tiles at a time, so that their chains overlap
// -----------------------------------------------

constexpr int float_tiles = 4;

QUANT_NOINLINE void multiply_row_float(const TileShape& t, DecodeBlock decode,
                                       const uint8_t* const (&tiles)[float_tiles], const float* x,
                                       Float (&y)[float_tiles]) {
    alignas(64) float decoded[float_tiles][block_cols * lanes];
    TileReader readers[float_tiles] = {
        {t, tiles[0], decode, {}}, {t, tiles[1], decode, {}}, {t, tiles[2], decode, {}}, {t, tiles[3], decode, {}}};
    Float sum[float_tiles];
    QUANT_UNROLL
    for (int i = 0; i < float_tiles; ++i) sum[i] = Simd::set(0);
    for (int b = 0; b < t.blocks; ++b, x += block_cols) {
        const float* block[float_tiles];
        for (int i = 0; i < float_tiles; ++i) block[i] = readers[i].read(b, b == 0, decoded[i]);
        const int64_t left = t.cols - static_cast<int64_t>(b) * block_cols;
        const int columns = left < block_cols ? static_cast<int>(left) : block_cols;
        for (int k = 0; k < columns; ++k) {
            const Float a = Simd::set(x[k]);
            QUANT_UNROLL
            for (int i = 0; i < float_tiles; ++i) sum[i] = Simd::fma(Simd::load(block[i] + k * lanes), a, sum[i]);
        }
    }
    QUANT_UNROLL
    for (int i = 0; i < float_tiles; ++i) y[i] = sum[i];
}

// ---- Several rows: some blocks of the weights decoded for all of them
// -----------------------------------------------------

constexpr int chunk_blocks = 16;    // decoded at a time: 64 KiB in all for two tiles of 16 rows, half of a small L2
constexpr int row_tiles_kept = 64;  // row tiles whose sums are kept from chunk to chunk
constexpr int chunk_floats = chunk_blocks * block_cols * lanes;  // of one weight tile

size_t scratch_float(const TileShape&, int max_rows) {
    const RowTiles rows = row_tiles(max_rows, row_tile);
    const size_t kept = (rows.tiles < row_tiles_kept ? rows.tiles : row_tiles_kept) * row_tile;
    return sizeof(float) * weight_tiles * (chunk_floats + kept * lanes);
}

template <int C>
QUANT_NOINLINE void multiply_float(const float* w, int columns, const float* x, float* sums) {
    constexpr int T = weight_tiles;
    Float y[T][C];
    QUANT_UNROLL
    for (int i = 0; i < T; ++i) {
        QUANT_UNROLL
        for (int c = 0; c < C; ++c) y[i][c] = Simd::load(sums + (c * T + i) * lanes);
    }
    for (int k = 0; k < columns; ++k, w += lanes, x += C) {
        Float column[T];
        QUANT_UNROLL
        for (int i = 0; i < T; ++i) column[i] = Simd::load(w + i * chunk_floats);
        QUANT_UNROLL
        for (int c = 0; c < C; ++c) {
            const Float a = Simd::set(x[c]);
            QUANT_UNROLL
            for (int i = 0; i < T; ++i) y[i][c] = Simd::fma(column[i], a, y[i][c]);
        }
    }
    QUANT_UNROLL
    for (int i = 0; i < T; ++i) {
        QUANT_UNROLL
        for (int c = 0; c < C; ++c) Simd::store(sums + (c * T + i) * lanes, y[i][c]);
    }
}

QUANT_INLINE Float scale_row(const LinearInput& in, int row, Float y) {
    return in.row_scales ? Simd::mul(y, Simd::set(in.row_scales[row].scale)) : y;
}

void linear_float(const LinearWeights& weights, const LinearInput& in, const LinearOutput& all, int first_tile,
                  int tiles, uint8_t* scratch) {
    const TileShape& t = *weights.shape;
    const DecodeBlock decode = decode_block_of(t);
    const int end = first_tile + tiles;
    const LinearOutput out = output_before(all, end);
    if (in.rows == 1) {
        for (int i = first_tile; i < end; i += float_tiles) {
            const uint8_t* packed[float_tiles];
            Float y[float_tiles];
            for (int j = 0; j < float_tiles; ++j) packed[j] = tile_or_last(weights, i + j, end);
            multiply_row_float(t, decode, packed, reinterpret_cast<const float*>(in.activations), y);
            for (int j = 0; j < float_tiles; ++j) store_output(out, 0, i + j, scale_row(in, 0, y[j]));
        }
        return;
    }
    float* decoded = reinterpret_cast<float*>(scratch);
    float* sums = decoded + weight_tiles * chunk_floats;
    const RowTiles rows = row_tiles(in.rows, row_tile);
    constexpr size_t row_sums = weight_tiles * lanes;
    for (int i = first_tile; i < end; i += weight_tiles)
        for (int kept = 0; kept < rows.tiles; kept += row_tiles_kept) {
            const int kept_end = kept + row_tiles_kept < rows.tiles ? kept + row_tiles_kept : rows.tiles;
            const int first_row = tile_first(rows, kept), end_row = tile_first(rows, kept_end);
            std::memset(sums, 0, (end_row - first_row) * row_sums * sizeof(float));
            for (int b = 0; b < t.blocks; b += chunk_blocks) {
                const int blocks = b + chunk_blocks < t.blocks ? chunk_blocks : t.blocks - b;
                for (int j = 0; j < weight_tiles; ++j) {
                    TileReader reader{t, tile_or_last(weights, i + j, end), decode, {}};
                    float* to = decoded + j * chunk_floats;
                    for (int n = 0; n < blocks; ++n, to += block_cols * lanes) {
                        const float* from = reader.read(b + n, n == 0, to);
                        if (from != to) std::memcpy(to, from, block_cols * lanes * sizeof(float));
                    }
                }
                for (int r = kept; r < kept_end; ++r) {
                    const int first = tile_first(rows, r), count = tile_count(rows, r);
                    const float* x = reinterpret_cast<const float*>(in.activations + first * in.row_bytes) +
                                     static_cast<int64_t>(b) * block_cols * count;
                    with_count(count, [&](auto c) QUANT_INLINE_LAMBDA {
                        multiply_float<decltype(c)::value>(decoded, blocks * block_cols, x,
                                                           sums + (first - first_row) * row_sums);
                    });
                }
            }
            for (int r = first_row; r < end_row; ++r)
                for (int j = 0; j < weight_tiles; ++j)
                    store_output(out, r, i + j,
                                 scale_row(in, r, Simd::load(sums + (r - first_row) * row_sums + j * lanes)));
        }
}
