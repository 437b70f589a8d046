// Float products: float and e4m3 weights, and any quantized weight decoded in registers, exactly as THE decode does.
// Included inside an unnamed namespace after linear_int8.inl.
//
// One output is the sum, in order, of the sums of 16 columns each, which are chains of fused multiply-adds, for any
// number of rows and threads. Short chains overlap: one row of activations needs no second weight tile to hide their
// latency.

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

// ---- Decoding columns of a tile ----------------------------------------------------------------------------------

struct GroupDecode {
    Float scale, zero, minimum;
};

// Column K of a block as float, for `lanes` rows.
template <Element E, int K>
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
        return Simd::add(Simd::mul(Simd::sub(code, g.zero), g.scale), g.minimum);
    }
}

// Reads the blocks of one tile in order, from `block` on.
struct TileReader {
    const TileShape& t;
    const uint8_t* panel;
    int in_panel;           // the next block, in its panel
    int halves;             // of that block's group, before it
    int group;              // that group, in the panel
    GroupDecode groups[2];  // of the halves of the block that was read last

    TileReader(const TileShape& t, const uint8_t* tile, int block)
        : t(t),
          panel(panel_at(t, tile, block / t.panel_blocks)),
          in_panel(block % t.panel_blocks),
          halves(2 * in_panel % t.group_halves),
          group(2 * in_panel / t.group_halves) {
        groups[0] = groups[1] = {Simd::set(1), Simd::set(static_cast<float>(t.zero)), Simd::set(0)};
        if (halves != 0) load_group(groups);
    }
    QUANT_NOINLINE void load_group(GroupDecode* to) {
        const GroupScale s = load_scale(t, panel, group);
        const Float zero = Simd::set(static_cast<float>(t.zero));
        const bool integer = t.header == HeaderKind::integer;
        *to = {s.scale, integer ? Simd::add(zero, s.offset) : zero, integer ? Simd::set(0) : s.offset};
    }
    QUANT_INLINE const uint8_t* next() {
        if (in_panel == t.panel_blocks) {
            panel += t.panel_bytes;
            in_panel = group = 0;
        }
        const uint8_t* block = panel + t.header_bytes + in_panel++ * t.block_bytes;
        if (t.header == HeaderKind::none) return block;
        if (halves == 0) {
            load_group(&groups[0]);
            if (t.group_halves == 1) ++group, load_group(&groups[1]);
        }
        if (t.group_halves > 1) groups[1] = groups[0];
        halves += 2;
        if (halves >= t.group_halves) halves = 0, ++group;
        return block;
    }
};

// ---- One row -----------------------------------------------------------------------------------------------------

constexpr int chain = 16;

template <Element E>
Float multiply_row_float(const TileShape& t, const uint8_t* tile, const float* x) {
    TileReader reader(t, tile, 0);
    Float y = Simd::set(0);
    for (int64_t left = t.cols; left > 0; left -= block_cols, x += block_cols) {
        const uint8_t* block = reader.next();
        prefetch_ahead(block, t.block_bytes);
        const float* a = x;
        float last[block_cols] = {};
        if (left < block_cols) {
            std::memcpy(last, x, static_cast<size_t>(left) * sizeof(float));
            a = last;
        }
        Float sum[2] = {Simd::set(0), Simd::set(0)};
        unrolled<block_cols>([&](auto k) QUANT_INLINE_LAMBDA {
            const Float w = decode_column<E, decltype(k)::value>(block, reader.groups[k / chain]);
            sum[k / chain] = Simd::fma(w, Simd::set(a[k]), sum[k / chain]);
        });
        y = Simd::add(Simd::add(y, sum[0]), sum[1]);
    }
    return y;
}

// ---- Several rows: some blocks of the weights decoded for all of them --------------------------------------------

constexpr int chunk_blocks = 8;                                  // decoded at a time
constexpr int row_tiles_kept = 64;                               // row tiles whose sums are kept from chunk to chunk
constexpr int chunk_floats = chunk_blocks * block_cols * lanes;  // of one weight tile

// [column][lanes]
template <Element E>
void decode_blocks(const TileShape& t, const uint8_t* tile, int first, int count, float* to) {
    TileReader reader(t, tile, first);
    for (int b = 0; b < count; ++b, to += block_cols * lanes) {
        const uint8_t* block = reader.next();
        unrolled<block_cols>([&](auto k) QUANT_INLINE_LAMBDA {
            Simd::store(to + k * lanes, decode_column<E, decltype(k)::value>(block, reader.groups[k / 16]));
        });
    }
}

// What differs between weights: how they are decoded.
struct FloatFunctions {
    Float (*multiply_row)(const TileShape&, const uint8_t* tile, const float* x);
    void (*decode_blocks)(const TileShape&, const uint8_t* tile, int first, int count, float* to);
};

template <Element E>
FloatFunctions float_functions_of() {
    if constexpr (direct_rows) return {multiply_row_float<E>, decode_blocks<E>};
    return {nullptr, decode_blocks<E>};
}

FloatFunctions float_functions(Element element) {
    switch (element) {
        case Element::f32:
            return float_functions_of<Element::f32>();
        case Element::f16:
            return float_functions_of<Element::f16>();
        case Element::bf16:
            return float_functions_of<Element::bf16>();
        case Element::e4m3:
            return float_functions_of<Element::e4m3>();
        case Element::u4:
            return float_functions_of<Element::u4>();
        case Element::u5:
            return float_functions_of<Element::u5>();
        case Element::u6:
            return float_functions_of<Element::u6>();
        default:
            return float_functions_of<Element::u8>();  // and s8
    }
}

int tiles_together_float(const TileShape&) {
    return static_cast<int>(cached_weights / (2 * chunk_floats * sizeof(float)) / weight_tiles * weight_tiles);
}
int rows_kept(int rows) {
    const int tiles = row_tiles(rows, row_tile).tiles;
    return (tiles < row_tiles_kept ? tiles : row_tiles_kept) * row_tile;
}
size_t scratch_float(const TileShape& t, int max_rows) {
    return sizeof(float) * tiles_together_float(t) * (chunk_floats + rows_kept(max_rows) * lanes);
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
    for (int k = 0; k < columns; k += chain) {
        Float sum[T][C];
        QUANT_UNROLL
        for (int i = 0; i < T; ++i) {
            QUANT_UNROLL
            for (int c = 0; c < C; ++c) sum[i][c] = Simd::set(0);
        }
        for (int n = 0; n < chain; ++n, w += lanes, x += C) {
            Float column[T];
            QUANT_UNROLL
            for (int i = 0; i < T; ++i) column[i] = Simd::load(w + i * chunk_floats);
            QUANT_UNROLL
            for (int c = 0; c < C; ++c) {
                const Float a = Simd::set(x[c]);
                QUANT_UNROLL
                for (int i = 0; i < T; ++i) sum[i][c] = Simd::fma(column[i], a, sum[i][c]);
            }
        }
        QUANT_UNROLL
        for (int i = 0; i < T; ++i) {
            QUANT_UNROLL
            for (int c = 0; c < C; ++c) y[i][c] = Simd::add(y[i][c], sum[i][c]);
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
    const FloatFunctions functions = float_functions(t.element);
    const int end = first_tile + tiles;
    const LinearOutput out = output_before(all, end);
    if (in.rows == 1 && direct_rows) {
        const float* x = reinterpret_cast<const float*>(in.activations);
        for (int i = first_tile; i < end; ++i)
            store_output(out, 0, i, scale_row(in, 0, functions.multiply_row(t, tile_or_last(weights, i, end), x)));
        return;
    }
    const RowTiles rows = row_tiles(in.rows, row_tile);
    const int together = tiles_together_float(t), kept_rows = rows_kept(in.rows);
    float* decoded = reinterpret_cast<float*>(scratch);  // [tiles][column of the chunk][lanes]
    float* sums = decoded + together * chunk_floats;     // [tiles][rows][lanes], a pair of tiles beside each other
    const auto sums_of = [&](int j, int row) QUANT_INLINE_LAMBDA {
        return sums + (static_cast<size_t>(j / weight_tiles) * kept_rows + row) * weight_tiles * lanes;
    };
    for (int begin = first_tile; begin < end; begin += together) {
        const int padded = padded_tiles(end - begin < together ? end - begin : together);
        for (int kept = 0; kept < rows.tiles; kept += row_tiles_kept) {
            const int kept_end = kept + row_tiles_kept < rows.tiles ? kept + row_tiles_kept : rows.tiles;
            const int first_row = tile_first(rows, kept), end_row = tile_first(rows, kept_end);
            std::memset(sums, 0, sizeof(float) * padded * kept_rows * lanes);
            for (int b = 0; b < t.blocks; b += chunk_blocks) {
                const int blocks = b + chunk_blocks < t.blocks ? chunk_blocks : t.blocks - b;
                for (int j = 0; j < padded; ++j)
                    functions.decode_blocks(t, tile_or_last(weights, begin + j, end), b, blocks,
                                            decoded + j * chunk_floats);
                for (int r = kept; r < kept_end; ++r) {
                    const int first = tile_first(rows, r), count = tile_count(rows, r);
                    const float* x = reinterpret_cast<const float*>(in.activations + first * in.row_bytes) +
                                     static_cast<int64_t>(b) * block_cols * count;
                    with_count(count, [&](auto c) QUANT_INLINE_LAMBDA {
                        for (int j = 0; j < padded; j += weight_tiles)
                            multiply_float<decltype(c)::value>(decoded + j * chunk_floats, blocks * block_cols, x,
                                                               sums_of(j, first - first_row));
                    });
                }
            }
            for (int r = first_row; r < end_row; ++r)
                for (int j = 0; j < padded; ++j)
                    store_output(out, r, begin + j,
                                 scale_row(in, r, Simd::load(sums_of(j, r - first_row) + j % weight_tiles * lanes)));
        }
    }
}
