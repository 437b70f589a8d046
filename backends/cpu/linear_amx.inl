// Products on AMX's tiles. A tile of rows16 is what the instructions take as their second operand: 16 rows of a weight
// with 4 columns of a byte (or 2 of bf16) in each lane. The first operand is up to 16 rows of activations. Included
// inside an unnamed namespace after linear.inl, tile_reader.inl and the vector vocabulary's Pairs.
//
// Integer sums are exact, and what follows them is computed in the order of linear_int8.inl: results have the same
// bits.

constexpr int tile_row_bytes = 64;

// The shapes of tiles: 0 and 1 are sums of first rows, 2 and 3 of second rows of activations, which are tiles 4 and 5;
// 6 and 7 are of weights.
struct TileShapes {
    int rows[2] = {0, 0};
    QUANT_NOINLINE void set(int first, int second, int row_bytes) {
        if (first == rows[0] && second == rows[1]) return;
        rows[0] = first, rows[1] = second;
        alignas(64) volatile uint8_t config[64] = {};  // volatile: compilers know of few of its bytes being read
        const int of[8] = {first, first, second, second, first, second, row_bytes / 4, row_bytes / 4};
        config[0] = 1;  // palette
        for (int i = 0; i < 8; ++i) {
            const int bytes = i == 4 || i == 5 ? row_bytes : tile_row_bytes;
            config[16 + 2 * i] = static_cast<uint8_t>(of[i] > 0 ? bytes : 0);
            config[48 + i] = static_cast<uint8_t>(of[i]);
        }
        _tile_loadconfig(const_cast<const uint8_t*>(config));
    }
    QUANT_INLINE static void release() { _tile_release(); }
};

constexpr size_t cached_expanded = 512 << 10;  // bytes: processors with AMX have 2 MiB of second-level cache

int fitting_tiles(size_t bytes) {  // of a weight, expanded
    const size_t tiles = cached_expanded / (bytes + 1) / weight_tiles * weight_tiles;
    return tiles < weight_tiles ? weight_tiles : tiles > 32 ? 32 : static_cast<int>(tiles);
}

// ---- Two tiles of a weight times one or two of activations -------------------------------------------------------

enum class Product { s8_u8, bf16 };

// Adds the products of `steps` steps: x0, x1 and w0, w1 move by a tile of so many bytes.
template <Product P, bool Second>
QUANT_INLINE void multiply_steps(const uint8_t* x0, const uint8_t* x1, const uint8_t* w0, const uint8_t* w1, int steps,
                                 size_t x0_bytes, size_t x1_bytes) {
    constexpr size_t w_bytes = 16 * tile_row_bytes;
    for (; steps > 0; --steps, x0 += x0_bytes, x1 += x1_bytes, w0 += w_bytes, w1 += w_bytes) {
        _tile_loadd(4, x0, tile_row_bytes);
        _tile_loadd(6, w0, tile_row_bytes);
        if constexpr (P == Product::bf16)
            _tile_dpbf16ps(0, 4, 6);
        else
            _tile_dpbsud(0, 4, 6);
        _tile_loadd(7, w1, tile_row_bytes);
        if constexpr (P == Product::bf16)
            _tile_dpbf16ps(1, 4, 7);
        else
            _tile_dpbsud(1, 4, 7);
        if constexpr (Second) {
            _tile_loadd(5, x1, tile_row_bytes);
            if constexpr (P == Product::bf16) {
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            } else {
                _tile_dpbsud(2, 5, 6);
                _tile_dpbsud(3, 5, 7);
            }
        }
    }
}
QUANT_INLINE void clear_sums(bool second) {
    _tile_zero(0);
    _tile_zero(1);
    if (!second) return;
    _tile_zero(2);
    _tile_zero(3);
}
// To [activations][weight tile][row][lanes].
QUANT_INLINE void store_sums(bool second, void* to) {
    uint8_t* at = static_cast<uint8_t*>(to);
    _tile_stored(0, at, tile_row_bytes);
    _tile_stored(1, at + 1024, tile_row_bytes);
    if (!second) return;
    _tile_stored(2, at + 2048, tile_row_bytes);
    _tile_stored(3, at + 3072, tile_row_bytes);
}

QUANT_INLINE Int load_sums(const int32_t* sums, int row) {
    return Simd::load_bytes(reinterpret_cast<const uint8_t*>(sums + row * lanes));
}

// Rows of activations that are multiplied together: tile `number` of them and the next one, if there is one.
struct RowPair {
    int first[2], count[2];
    bool second;
    RowPair(RowTiles rows, int number) : first{0, 0}, count{0, 0}, second(number + 1 < rows.tiles) {
        for (int i = 0; i < (second ? 2 : 1); ++i) {
            first[i] = tile_first(rows, number + i);
            count[i] = tile_count(rows, number + i);
        }
    }
};

// ---- a8w8 --------------------------------------------------------------------------------------------------------

// Steps of 64 columns, [step][row][64].
void prepare_s8_tiles(const uint8_t* codes, int64_t stride, int blocks, int first_row, int rows, uint8_t* to) {
    const int64_t cols = static_cast<int64_t>(blocks) * block_cols;
    for (int64_t k = 0; k < cols; k += 64)
        for (int c = 0; c < rows; ++c, to += 64) {
            const int n = cols - k < 64 ? static_cast<int>(cols - k) : 64;
            std::memcpy(to, codes + (first_row + c) * stride + k, n);
            std::memset(to + n, 0, 64 - n);
        }
}

// The last 32 columns of a tile of a weight, and 32 of zero codes.
QUANT_NOINLINE void copy_last_block(const TileShape& t, const uint8_t* tile, uint8_t* to) {
    std::memcpy(to, tile + t.header_bytes + (t.blocks - 1) * t.block_bytes, t.block_bytes);
    std::memset(to + t.block_bytes, 0, 1024 - t.block_bytes);
}

template <bool Second>
QUANT_NOINLINE void multiply_s8_tiles(const TileShape& t, const uint8_t* w0, const uint8_t* w1, const uint8_t* last,
                                      const LinearInput& in, const RowPair& rows, int32_t* sums) {
    const uint8_t* x0 = in.activations + rows.first[0] * in.row_bytes;
    const uint8_t* x1 = in.activations + rows.first[1] * in.row_bytes;
    const size_t x0_bytes = rows.count[0] * 64, x1_bytes = rows.count[1] * 64;
    const int steps = t.blocks / 2;
    clear_sums(Second);
    multiply_steps<Product::s8_u8, Second>(x0, x1, w0 + t.header_bytes, w1 + t.header_bytes, steps, x0_bytes, x1_bytes);
    if (t.blocks % 2 != 0)
        multiply_steps<Product::s8_u8, Second>(x0 + steps * x0_bytes, x1 + steps * x1_bytes, last, last + 1024, 1,
                                               x0_bytes, x1_bytes);
    store_sums(Second, sums);
}

int tiles_together_s8_tiles(const TileShape& t) {
    return fitting_tiles(t.tile_bytes);
}
size_t no_scratch(const TileShape&, int) {
    return 0;
}

void linear_s8_tiles(const LinearWeights& weights, const LinearInput& in, const LinearOutput& all, int first_tile,
                     int tiles, uint8_t*) {
    const TileShape& t = *weights.shape;
    const int end = first_tile + tiles;
    const LinearOutput out = output_before(all, end);
    const RowTiles row_strips = row_tiles(in.rows, row_tile);
    const int together = tiles_together_s8_tiles(t);
    TileShapes shapes;
    alignas(64) int32_t sums[2][weight_tiles][16 * lanes];
    alignas(64) uint8_t last[weight_tiles][1024];
    for (int begin = first_tile; begin < end; begin += together)
        for (int r = 0; r < row_strips.tiles; r += 2) {
            const RowPair rows(row_strips, r);
            shapes.set(rows.count[0], rows.count[1], 64);
            for (int j = begin; j < begin + together && j < end; j += weight_tiles) {
                const uint8_t* w[weight_tiles] = {tile_or_last(weights, j, end), tile_or_last(weights, j + 1, end)};
                if (t.blocks % 2 != 0)
                    for (int i = 0; i < weight_tiles; ++i) copy_last_block(t, w[i], last[i]);
                if (rows.second)
                    multiply_s8_tiles<true>(t, w[0], w[1], last[0], in, rows, sums[0][0]);
                else
                    multiply_s8_tiles<false>(t, w[0], w[1], last[0], in, rows, sums[0][0]);
                for (int i = 0; i < weight_tiles; ++i) {
                    const ExactResult result(t, w[i]);
                    for (int p = 0; p < (rows.second ? 2 : 1); ++p)
                        for (int c = 0; c < rows.count[p]; ++c) {
                            const int row = rows.first[p] + c;
                            const RowScale& x = in.row_scales[row];
                            const Int sum = Simd::sub(load_sums(sums[p][i], c), Simd::set_int(t.zero * x.sum));
                            store_output(out, row, j + i, result.of(sum, x));
                        }
                }
            }
        }
    TileShapes::release();
}

// ---- Float activations rounded to int8 per 32 columns ------------------------------------------------------------
//
// A block is one product; its sums, stored, are scaled while the next ones are on their way.

// [block][8 steps][64 bytes] of codes, signed or not, then scales and offsets [group][lanes].
struct TileCodes {
    const uint8_t* codes;
    const float *scales, *offsets;  // offsets: null if there are none
};
QUANT_INLINE size_t tile_codes_bytes(const TileShape& t) {
    return static_cast<size_t>(t.blocks) * 512 + 2 * sizeof(float) * lanes * t.groups;
}
// Codes less the code of 0; unsigned 8-bit codes have none.
template <int Bits>
QUANT_NOINLINE void expand_codes(const TileShape& t, const uint8_t* tile, uint8_t* to, TileCodes* expanded) {
    TileReader reader(t, tile, 0);
    float* scales = reinterpret_cast<float*>(to + static_cast<size_t>(t.blocks) * 512);
    float* offsets = scales + static_cast<size_t>(t.groups) * lanes;
    *expanded = {to, scales, has_offsets(t) ? offsets : nullptr};
    const __m512i zero = _mm512_set1_epi8(static_cast<char>(t.zero));
    const bool zero_points = t.header == HeaderKind::integer;
    for (int g = 0, panel = 0; g < t.groups; ++panel)
        for (int i = 0; i < t.panel_groups && g < t.groups; ++i, ++g, scales += lanes, offsets += lanes) {
            GroupScale s = load_scale(t, panel_at(t, tile, panel), i);
            if (zero_points) s.offset = Simd::mul(Simd::sub(Simd::set(0), s.offset), s.scale);
            Simd::store(scales, s.scale);
            Simd::store(offsets, s.offset);
        }
    for (int b = 0; b < t.blocks; ++b, to += 512) {
        const uint8_t* block =
            panel_at(t, tile, b / t.panel_blocks) + t.header_bytes + b % t.panel_blocks * t.block_bytes;
        unrolled<steps_per_block>([&](auto s) QUANT_INLINE_LAMBDA {
            Simd::store_bytes(to + s * step_bytes,
                              _mm512_sub_epi8(load_dot_step<Bits, decltype(s)::value>(block), zero));
        });
    }
}

template <int N, bool Signed>
QUANT_INLINE void multiply_block(const uint8_t* x, const uint8_t* w, int32_t* sums) {
    if constexpr (N == 0) {
        _tile_zero(0);
        _tile_loadd(4, x, block_cols);
        _tile_loadd(6, w, tile_row_bytes);
        if constexpr (Signed)
            _tile_dpbssd(0, 4, 6);
        else
            _tile_dpbsud(0, 4, 6);
        _tile_stored(0, sums, tile_row_bytes);
    } else if constexpr (N == 1) {
        _tile_zero(1);
        _tile_loadd(5, x, block_cols);
        _tile_loadd(7, w, tile_row_bytes);
        if constexpr (Signed)
            _tile_dpbssd(1, 5, 7);
        else
            _tile_dpbsud(1, 5, 7);
        _tile_stored(1, sums, tile_row_bytes);
    } else if constexpr (N == 2) {
        _tile_zero(2);
        _tile_loadd(4, x, block_cols);
        _tile_loadd(6, w, tile_row_bytes);
        if constexpr (Signed)
            _tile_dpbssd(2, 4, 6);
        else
            _tile_dpbsud(2, 4, 6);
        _tile_stored(2, sums, tile_row_bytes);
    } else {
        _tile_zero(3);
        _tile_loadd(5, x, block_cols);
        _tile_loadd(7, w, tile_row_bytes);
        if constexpr (Signed)
            _tile_dpbssd(3, 5, 7);
        else
            _tile_dpbsud(3, 5, 7);
        _tile_stored(3, sums, tile_row_bytes);
    }
}

template <Groups G, bool Signed>
QUANT_NOINLINE void multiply_int8_tiles(const TileShape& t, const TileCodes& w, const uint8_t* x, int count,
                                        const LinearOutput& out, int first_row, int64_t tile) {
    constexpr int rows = 16, ahead = 2, buffers = 4;
    constexpr bool group_is_block = G == Groups::of_32;
    alignas(64) int32_t sums[buffers][rows * lanes];
    alignas(64) float y[rows * lanes] = {};
    const size_t x_bytes = static_cast<size_t>(int8_block_bytes) * count;
    const int group_blocks = group_is_block ? 1 : t.group_halves / 2;
    Float kept[rows];  // results; where a group has several blocks, its sum so far, and results are in memory
    QUANT_UNROLL
    for (int c = 0; c < rows; ++c) kept[c] = Simd::set(0);
    const float *scales = w.scales, *offsets = w.offsets;
    int in_group = 0;
    auto issue = [&](auto n, int b) QUANT_INLINE_LAMBDA {
        constexpr int N = decltype(n)::value % buffers;
        if (b < t.blocks) multiply_block<N, Signed>(x + b * x_bytes, w.codes + b * 512, sums[N]);
    };
    issue(Constant<0>{}, 0);
    issue(Constant<1>{}, 1);
    for (int first = 0; first < t.blocks; first += buffers)
        unrolled<buffers>([&](auto i) QUANT_INLINE_LAMBDA {
            constexpr int N = decltype(i)::value;
            const int b = first + N;
            issue(Constant<N + ahead>{}, b + ahead);
            if (b >= t.blocks) return;
            const uint8_t* numbers = x + b * x_bytes + block_cols * count;  // past the last row is something else's
            const Float scale = Simd::load(scales);
            QUANT_UNROLL
            for (int c = 0; c < rows; ++c) {
                const Float integer = Simd::to_float(load_sums(sums[N], c));
                const Float activations = Simd::set(load_scalar(numbers + 4 * c));
                kept[c] = group_is_block ? Simd::fma(Simd::mul(integer, activations), scale, kept[c])
                                         : Simd::fma(integer, activations, kept[c]);
            }
            if (++in_group < group_blocks && b + 1 < t.blocks) return;
            in_group = 0;
            scales += lanes;
            if (!group_is_block) {
                QUANT_UNROLL
                for (int c = 0; c < rows; ++c) {
                    Simd::store(y + c * lanes, Simd::fma(kept[c], scale, Simd::load(y + c * lanes)));
                    kept[c] = Simd::set(0);
                }
            }
            if (!offsets) return;
            const Float offset = Simd::load(offsets);
            offsets += lanes;
            QUANT_UNROLL
            for (int c = 0; c < rows; ++c) {
                const Float activations = Simd::set(load_scalar(numbers + 12 * count + 4 * c));
                if (group_is_block)
                    kept[c] = Simd::fma(activations, offset, kept[c]);
                else
                    Simd::store(y + c * lanes, Simd::fma(activations, offset, Simd::load(y + c * lanes)));
            }
        });
    if (group_is_block) {
        QUANT_UNROLL
        for (int c = 0; c < rows; ++c) Simd::store(y + c * lanes, kept[c]);
    }
    for (int c = 0; c < count; ++c) store_output(out, first_row + c, tile, Simd::load(y + c * lanes));
}

struct TileFunctions {
    void (*expand)(const TileShape&, const uint8_t* tile, uint8_t* to, TileCodes*);
    void (*multiply)(const TileShape&, const TileCodes&, const uint8_t* x, int count, const LinearOutput&,
                     int first_row, int64_t tile);
};
TileFunctions tile_functions(const TileShape& t) {
    const bool is_signed = t.zero != 0 || element_bits(t.element) < 8;
    const auto multiply =
        t.group_halves == 2
            ? (is_signed ? multiply_int8_tiles<Groups::of_32, true> : multiply_int8_tiles<Groups::of_32, false>)
            : (is_signed ? multiply_int8_tiles<Groups::longer, true> : multiply_int8_tiles<Groups::longer, false>);
    switch (t.element) {
        case Element::u4:
            return {expand_codes<4>, multiply};
        case Element::u5:
            return {expand_codes<5>, multiply};
        case Element::u6:
            return {expand_codes<6>, multiply};
        default:
            return {expand_codes<8>, multiply};
    }
}

int tiles_together_int8_tiles(const TileShape& t) {
    return fitting_tiles(tile_codes_bytes(t));
}
size_t scratch_int8_tiles(const TileShape& t, int) {
    return tiles_together_int8_tiles(t) * tile_codes_bytes(t) + tile_row_bytes;
}

void linear_int8_tiles(const LinearWeights& weights, const LinearInput& in, const LinearOutput& all, int first_tile,
                       int tiles, uint8_t* scratch) {
    const TileShape& t = *weights.shape;
    const TileFunctions functions = tile_functions(t);
    const int end = first_tile + tiles;
    const LinearOutput out = output_before(all, end);
    const RowTiles rows = row_tiles(in.rows, row_tile);
    const int together = tiles_together_int8_tiles(t);
    TileShapes shapes;
    scratch += -reinterpret_cast<uintptr_t>(scratch) % tile_row_bytes;
    for (int begin = first_tile; begin < end; begin += together) {
        const int count = end - begin < together ? end - begin : together;
        TileCodes w[32];
        for (int j = 0; j < count; ++j)
            functions.expand(t, tile_or_last(weights, begin + j, end), scratch + j * tile_codes_bytes(t), w + j);
        for (int r = 0; r < rows.tiles; ++r) {
            const int first = tile_first(rows, r), in_tile = tile_count(rows, r);
            shapes.set(in_tile, in_tile, block_cols);
            for (int j = 0; j < count; ++j)
                functions.multiply(t, w[j], in.activations + first * in.row_bytes, in_tile, out, first, begin + j);
        }
    }
    TileShapes::release();
}

// ---- bf16 --------------------------------------------------------------------------------------------------------

// Blocks of 32 columns, [block][row][32].
void prepare_bf16_tiles(const float* in, int64_t stride, int64_t cols, int blocks, int first_row, int rows,
                        uint8_t* to) {
    for (int b = 0; b < blocks; ++b) {
        const int64_t left = cols - static_cast<int64_t>(b) * block_cols;
        const int n = left < block_cols ? static_cast<int>(left) : block_cols;
        for (int c = 0; c < rows; ++c, to += tile_row_bytes) {
            const float* row = in + (first_row + c) * stride + static_cast<int64_t>(b) * block_cols;
            Simd::store(
                reinterpret_cast<float*>(to),
                Pairs::round(Simd::load(row, n), n > lanes ? Simd::load(row + lanes, n - lanes) : Simd::set(0)));
        }
    }
}

// [block][pair][lanes]
QUANT_NOINLINE void pair_columns(const TileShape& t, const uint8_t* tile, int first, int count, uint8_t* to) {
    TileReader reader(t, tile, first);
    for (int b = 0; b < count; ++b, to += 1024) {
        const uint8_t* block = reader.next();
        unrolled<block_cols / 2>([&](auto p) QUANT_INLINE_LAMBDA {
            const auto* columns = reinterpret_cast<const float*>(block) + p * lanes;
            Simd::store(reinterpret_cast<float*>(to) + p * lanes, Pairs::interleave(Simd::load(columns)));
        });
    }
}

template <bool Second>
QUANT_NOINLINE void multiply_bf16_tiles(const uint8_t* w, size_t next_tile, const LinearInput& in, const RowPair& rows,
                                        int first_block, int blocks) {
    const size_t x0_bytes = rows.count[0] * tile_row_bytes, x1_bytes = rows.count[1] * tile_row_bytes;
    multiply_steps<Product::bf16, Second>(in.activations + rows.first[0] * in.row_bytes + first_block * x0_bytes,
                                          in.activations + rows.first[1] * in.row_bytes + first_block * x1_bytes, w,
                                          w + next_tile, blocks, x0_bytes, x1_bytes);
}
void multiply_bf16_tiles(const uint8_t* w, size_t next_tile, const LinearInput& in, const RowPair& rows,
                         int first_block, int blocks) {
    if (rows.second)
        multiply_bf16_tiles<true>(w, next_tile, in, rows, first_block, blocks);
    else
        multiply_bf16_tiles<false>(w, next_tile, in, rows, first_block, blocks);
}

constexpr int few_blocks = 8;  // of a weight, decoded at a time for a pair of row tiles

int tiles_together_bf16_tiles(const TileShape& t) {
    return fitting_tiles(static_cast<size_t>(t.blocks) * 1024);
}
size_t scratch_bf16_tiles(const TileShape& t, int) {
    return static_cast<size_t>(tiles_together_bf16_tiles(t)) * t.blocks * 1024 + tile_row_bytes;
}

void store_bf16_tiles(const LinearOutput& out, const RowPair& rows, int64_t tile) {
    alignas(64) float sums[2][weight_tiles][16 * lanes];
    store_sums(rows.second, sums);
    for (int p = 0; p < (rows.second ? 2 : 1); ++p)
        for (int c = 0; c < rows.count[p]; ++c)
            for (int i = 0; i < weight_tiles; ++i)
                store_output(out, rows.first[p] + c, tile + i, Simd::load(sums[p][i] + c * lanes));
}

void linear_bf16_tiles(const LinearWeights& weights, const LinearInput& in, const LinearOutput& all, int first_tile,
                       int tiles, uint8_t* scratch) {
    const TileShape& t = *weights.shape;
    const int end = first_tile + tiles;
    const LinearOutput out = output_before(all, end);
    const RowTiles row_strips = row_tiles(in.rows, row_tile);
    TileShapes shapes;
    scratch += -reinterpret_cast<uintptr_t>(scratch) % tile_row_bytes;
    if (row_strips.tiles <= 2) {  // weights are decoded once: close by
        const RowPair rows(row_strips, 0);
        shapes.set(rows.count[0], rows.count[1], tile_row_bytes);
        for (int j = first_tile; j < end; j += weight_tiles) {
            clear_sums(rows.second);
            for (int b = 0; b < t.blocks; b += few_blocks) {
                const int blocks = t.blocks - b < few_blocks ? t.blocks - b : few_blocks;
                for (int i = 0; i < weight_tiles; ++i)
                    pair_columns(t, tile_or_last(weights, j + i, end), b, blocks, scratch + i * few_blocks * 1024);
                multiply_bf16_tiles(scratch, few_blocks * 1024, in, rows, b, blocks);
            }
            store_bf16_tiles(out, rows, j);
        }
        TileShapes::release();
        return;
    }
    const int together = tiles_together_bf16_tiles(t);
    const size_t tile_bytes = static_cast<size_t>(t.blocks) * 1024;
    for (int begin = first_tile; begin < end; begin += together) {
        const int padded = padded_tiles(end - begin < together ? end - begin : together, weight_tiles);
        for (int j = 0; j < padded; ++j)
            pair_columns(t, tile_or_last(weights, begin + j, end), 0, t.blocks, scratch + j * tile_bytes);
        for (int r = 0; r < row_strips.tiles; r += 2) {
            const RowPair rows(row_strips, r);
            shapes.set(rows.count[0], rows.count[1], tile_row_bytes);
            for (int j = 0; j < padded; j += weight_tiles) {
                clear_sums(rows.second);
                multiply_bf16_tiles(scratch + j * tile_bytes, tile_bytes, in, rows, 0, t.blocks);
                store_bf16_tiles(out, rows, begin + j);
            }
        }
    }
    TileShapes::release();
}
