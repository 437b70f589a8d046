// Integer dot products of weight codes and int8 activations, a float scale per group. Included inside an unnamed
// namespace after linear.inl; the including file defines direct_rows: whether one row is multiplied straight from the
// packed tile, and s8_row_tile, which is row_tile for a8w8.
//
//     y[row] += weight_scale[group] * (sum over the group's blocks of activation_scale[block] * float(integer sum))
//             + minimum[group] * (sum of the group's activations)
//
// The order of operations of one output is the same for any number of rows and threads.

// ---- Activations -------------------------------------------------------------------------------------------------

// Where columns [k, k + 8) of row c lie in a block of the codes of `rows` rows. For a matrix product, two rows' columns
// lie side by side, so that x + 16 is the second half of a block, as it is for one row.
QUANT_INLINE int code_offset(int c, int rows, int k) {
    if (!Simd::matrix_dot || (c | 1) >= rows) return block_cols * c + k;
    return block_cols * ((c & ~1) + k / 8 % 2) + k / 16 * 16 + c % 2 * 8;
}

void prepare_int8(const Int8Activations& from, int first_row, int rows, uint8_t* to) {
    constexpr int vectors = block_cols / lanes;
    for (int c = 0; c < rows; ++c) {
        const float* row = from.in + (first_row + c) * from.in_stride;
        uint8_t* block = to;
        float group_sum = 0;
        int halves = 0;  // of the group, so far
        for (int b = 0; b < from.blocks; ++b, block += int8_block_bytes * rows) {
            const int64_t left = from.cols - static_cast<int64_t>(b) * block_cols;
            Float x[vectors];
            for (int i = 0; i < vectors; ++i) {
                const float* p = row + static_cast<int64_t>(b) * block_cols + i * lanes;
                if (left >= block_cols)
                    x[i] = Simd::load(p);
                else
                    x[i] = left > i * lanes ? Simd::load(p, static_cast<int>(left - i * lanes)) : Simd::set(0);
            }
            Float magnitude = Simd::set(0);
            for (int i = 0; i < vectors; ++i) magnitude = larger_magnitude(x[i], magnitude);
            const float largest = Simd::reduce_max(magnitude);
            const Float inverse = Simd::set(largest > 0 ? 127.0f / largest : 0.0f);
            Int half[2] = {Simd::set_int(0), Simd::set_int(0)};
            for (int i = 0; i < vectors; ++i) {
                Int code = round_code(Simd::mul(x[i], inverse));
                half[2 * i / vectors] = Simd::add(half[2 * i / vectors], code);
                Simd::store_s8(block + code_offset(c, rows, i * lanes), code);
            }
            const float scale = largest / 127.0f;
            const int32_t low = Simd::reduce_add(half[0]), high = Simd::reduce_add(half[1]);
            const bool split = from.group_halves == 1;
            const int32_t start[2] = {-from.zero * (split ? low : low + high), -from.zero * high};
            group_sum += scale * static_cast<float>(low + high);
            halves += 2;
            const bool ends = halves >= from.group_halves || b + 1 == from.blocks;
            const float sum = ends ? group_sum : 0;
            if (ends) halves = 0, group_sum = 0;
            uint8_t* numbers = block + block_cols * rows + 4 * c;
            std::memcpy(numbers, &scale, 4);
            std::memcpy(numbers + 4 * rows, &start[0], 4);
            std::memcpy(numbers + 8 * rows, &start[1], 4);
            std::memcpy(numbers + 12 * rows, &sum, 4);
        }
    }
}

void prepare_s8(const uint8_t* codes, int64_t stride, int blocks, int first_row, int rows, uint8_t* to) {
    for (int b = 0; b < blocks; ++b)
        for (int c = 0; c < rows; ++c) {
            const uint8_t* from = codes + (first_row + c) * stride + static_cast<int64_t>(b) * block_cols;
            uint8_t* block = to + static_cast<int64_t>(b) * rows * block_cols;
            constexpr int together = Simd::matrix_dot ? 8 : block_cols;
            for (int k = 0; k < block_cols; k += together)
                std::memcpy(block + code_offset(c, rows, k), from + k, together);
        }
}

// ---- The integer sums --------------------------------------------------------------------------------------------

// A matrix product keeps the sums of rows c and c + 1 of the activations mixed: from here to there and back.
template <int Bits, int T, int C, class V = Simd>
QUANT_INLINE void pair_sums(Int (&sum)[T][C]) {
    if constexpr (Simd::matrix_dot && Bits == 8) {
        QUANT_UNROLL
        for (int c = 0; c + 1 < C; c += 2) {
            QUANT_UNROLL
            for (int t = 0; t < T; ++t) V::pair_sums(sum[t][c], sum[t][c + 1]);
        }
    }
}
template <int Bits, int T, int C, class V = Simd>
QUANT_INLINE void unpair_sums(Int (&sum)[T][C]) {
    if constexpr (Simd::matrix_dot && Bits == 8) {
        QUANT_UNROLL
        for (int c = 0; c + 1 < C; c += 2) {
            QUANT_UNROLL
            for (int t = 0; t < T; ++t) V::unpair_sums(sum[t][c], sum[t][c + 1]);
        }
    }
}

// The matrix product: codes(t, s) is 8 columns of rows 0 to 3 for an even s, of rows 4 to 7 for the odd s after it.
template <int T, int C, int Steps, class Codes, class V = Simd>
QUANT_INLINE void accumulate_matrix(Int (&sum)[T][C], Codes codes, const uint8_t* x) {
    unrolled<Steps / 2>([&](auto p) QUANT_INLINE_LAMBDA {
        constexpr Constant<2 * decltype(p)::value> s{};
        constexpr Constant<s + 1> next{};
        QUANT_UNROLL
        for (int c = 0; c + 1 < C; c += 2) {
            const auto a = V::load_activations(x + block_cols * (c + s / 2 % 2) + s / 4 * 16);
            QUANT_UNROLL
            for (int t = 0; t < T; ++t) {
                sum[t][c] = V::multiply_pair(sum[t][c], codes(t, s), a);
                sum[t][c + 1] = V::multiply_pair(sum[t][c + 1], codes(t, next), a);
            }
        }
    });
    if constexpr (C % 2 == 1) {
        QUANT_UNROLL
        for (int t = 0; t < T; ++t) {
            Int low = Simd::set_int(0), high = Simd::set_int(0);
            unrolled<Steps / 2>([&](auto p) QUANT_INLINE_LAMBDA {
                constexpr Constant<2 * decltype(p)::value> s{};
                constexpr Constant<s + 1> next{};
                const auto a = V::broadcast8(x + block_cols * (C - 1) + 4 * s);
                low = V::multiply_one(low, codes(t, s), a);
                high = V::multiply_one(high, codes(t, next), a);
            });
            sum[t][C - 1] = Simd::add(sum[t][C - 1], V::add_halves(low, high));
        }
    }
}

// The codes as `dot` takes them: those of 8 bits with Simd::bias_8_bits added.
template <int Bits, class V = Simd>
QUANT_INLINE Bytes dot_codes(Bytes codes) {
    if constexpr (Bits == 8 && V::bias_8_bits != 0)
        return V::unsigned_codes(codes);
    else
        return codes;
}
int code_bias(const TileShape& t) {  // that is in the codes which `dot` sees
    return t.zero + (element_bits(t.element) == 8 ? Simd::bias_8_bits : 0);
}

// sum[t][c] += products over Steps steps: codes(t, s) with the 4 activations at x + 32 c + 4 s; sums paired.
template <int Bits, int T, int C, int Steps, class Codes,
          class V = Simd>  // V: looked at only where it has the operation
QUANT_INLINE void accumulate(Int (&sum)[T][C], Codes codes, const uint8_t* x) {
    if constexpr (Simd::matrix_dot && Bits == 8) {
        accumulate_matrix<T, C, Steps>(sum, codes, x);
    } else if constexpr (Simd::lane_dot) {
        decltype(V::load_activations(x)) a[C];
        unrolled<Steps>([&](auto s) QUANT_INLINE_LAMBDA {
            constexpr int lane = decltype(s)::value % 4;
            QUANT_UNROLL
            for (int c = 0; c < C; ++c) {
                if (lane == 0) a[c] = V::load_activations(x + block_cols * c + 4 * s);
                QUANT_UNROLL
                for (int t = 0; t < T; ++t) sum[t][c] = V::template dot<lane>(sum[t][c], codes(t, s), a[c]);
            }
        });
    } else if constexpr (Simd::fused_dot && T * C == 1) {  // four sums, which do not wait for each other
        Int parts[4] = {sum[0][0], Simd::set_int(0), Simd::set_int(0), Simd::set_int(0)};
        unrolled<Steps>([&](auto s) QUANT_INLINE_LAMBDA {
            parts[s % 4] = V::dot(parts[s % 4], dot_codes<Bits>(codes(0, s)), V::broadcast4(x + 4 * s));
        });
        sum[0][0] = Simd::add(Simd::add(parts[0], parts[1]), Simd::add(parts[2], parts[3]));
    } else if constexpr (Simd::fused_dot) {
        unrolled<Steps>([&](auto s) QUANT_INLINE_LAMBDA {
            QUANT_UNROLL
            for (int c = 0; c < C; ++c) {
                const auto a = V::broadcast4(x + block_cols * c + 4 * s);
                QUANT_UNROLL
                for (int t = 0; t < T; ++t) sum[t][c] = V::dot(sum[t][c], dot_codes<Bits>(codes(t, s)), a);
            }
        });
    } else {
        constexpr int together =
            V::template steps_in_16_bits<Bits> < Steps ? V::template steps_in_16_bits<Bits> : Steps;
        typename V::Products products[T][C];
        unrolled<Steps>([&](auto s) QUANT_INLINE_LAMBDA {
            QUANT_UNROLL
            for (int c = 0; c < C; ++c) {
                const auto a = V::broadcast4(x + block_cols * c + 4 * s);
                QUANT_UNROLL
                for (int t = 0; t < T; ++t) {
                    products[t][c] = s % together == 0 ? V::template product<Bits>(codes(t, s), a)
                                                       : V::template add_product<Bits>(products[t][c], codes(t, s), a);
                    if (s % together == together - 1) sum[t][c] = V::add_pairs(sum[t][c], products[t][c]);
                }
            }
        });
    }
}

template <int Bits, int T, int C, int Steps, class Codes>
QUANT_INLINE void dot(Int (&sum)[T][C], Codes codes, const uint8_t* x) {
    pair_sums<Bits>(sum);
    accumulate<Bits, T, C, Steps>(sum, codes, x);
    unpair_sums<Bits>(sum);
}

// ---- One row: straight from the packed tiles ---------------------------------------------------------------------

template <int Bits, Groups G, int T>
QUANT_NOINLINE void multiply_row(const TileShape& t, const uint8_t* const* tiles, const uint8_t* x,
                                 const LinearOutput& out, int64_t first_tile) {
    constexpr size_t block_bytes = Bits * step_bytes;
    constexpr bool slow = Bits < 8;  // the more codes in a line, the more is computed with it
    Float y[T];
    QUANT_UNROLL
    for (int i = 0; i < T; ++i) y[i] = Simd::set(0);
    const bool offsets = has_offsets(t), zero_points = t.header == HeaderKind::integer;
    size_t panel = 0;
    for (int left = t.blocks; left > 0; panel += t.panel_bytes) {
        size_t block = panel + t.header_bytes;
        QUANT_UNROLL
        for (int i = 0; i < T; ++i) prefetch_ahead<T, slow>(tiles[i] + panel, t.header_bytes);
        for (int g = 0; g < t.panel_groups && left > 0; ++g) {
            if constexpr (G == Groups::of_16) {
                const Float scale = Simd::set(load_scalar(x + 32));
                QUANT_UNROLL
                for (int h = 0; h < 2; ++h) {
                    Int sum[T][1];
                    QUANT_UNROLL
                    for (int i = 0; i < T; ++i) sum[i][0] = Simd::set_int(load_scalar_int(x + 36 + 4 * h));
                    dot<Bits, T, 1, 4>(
                        sum,
                        [&](int i, auto s) QUANT_INLINE_LAMBDA {
                            constexpr int step = decltype(s)::value;
                            return h == 0 ? load_dot_step<Bits, step>(tiles[i] + block)
                                          : load_dot_step<Bits, step + 4>(tiles[i] + block);
                        },
                        x + 16 * h);
                    QUANT_UNROLL
                    for (int i = 0; i < T; ++i)
                        y[i] = Simd::fma(Simd::mul(Simd::to_float(sum[i][0]), scale),
                                         load_scale(t, tiles[i] + panel, g + h).scale, y[i]);
                }
                QUANT_UNROLL
                for (int i = 0; i < T; ++i) prefetch_ahead<T, slow>(tiles[i] + block, block_bytes);
                block += block_bytes, x += int8_block_bytes, --left, ++g;
            } else {
                Float sum[T], activations = Simd::set(0);
                QUANT_UNROLL
                for (int i = 0; i < T; ++i) sum[i] = Simd::set(0);
                for (int b = 0; b < (G == Groups::of_32 ? 1 : t.group_halves / 2) && left > 0; ++b, --left) {
                    Int integer[T][1];
                    QUANT_UNROLL
                    for (int i = 0; i < T; ++i) integer[i][0] = Simd::set_int(load_scalar_int(x + 36));
                    dot<Bits, T, 1, 8>(
                        integer,
                        [&](int i, auto s)
                            QUANT_INLINE_LAMBDA { return load_dot_step<Bits, decltype(s)::value>(tiles[i] + block); },
                        x);
                    const Float scale = Simd::set(load_scalar(x + 32));
                    QUANT_UNROLL
                    for (int i = 0; i < T; ++i) {
                        sum[i] = Simd::fma(Simd::to_float(integer[i][0]), scale, sum[i]);
                        prefetch_ahead<T, slow>(tiles[i] + block, block_bytes);
                    }
                    activations = Simd::set(load_scalar(x + 44));
                    block += block_bytes, x += int8_block_bytes;
                }
                QUANT_UNROLL
                for (int i = 0; i < T; ++i) {
                    GroupScale group = load_scale(t, tiles[i] + panel, g);
                    y[i] = Simd::fma(sum[i], group.scale, y[i]);
                    if (offsets) {
                        if (zero_points) group.offset = Simd::mul(Simd::sub(Simd::set(0), group.offset), group.scale);
                        y[i] = Simd::fma(activations, group.offset, y[i]);
                    }
                }
            }
        }
    }
    for (int i = 0; i < T; ++i) store_output(out, 0, first_tile + i, y[i]);
}

// ---- Several rows: scales, and codes of fewer than 8 bits, expanded first ----------------------------------------

struct ExpandedTile {
    const uint8_t* codes;  // panels of blocks of 8 steps, a byte per code
    size_t panel_bytes;
    const float* scales;   // [groups][lanes]
    const float* offsets;  // the same, to be added; null: none
};

QUANT_INLINE size_t expanded_groups(const TileShape& t) {  // whole panels, whose headers are padded with zeros
    return static_cast<size_t>((t.groups + t.panel_groups - 1) / t.panel_groups) * t.panel_groups;
}
QUANT_INLINE size_t expanded_tile_bytes(const TileShape& t) {
    return static_cast<size_t>(t.blocks) * steps_per_block * step_bytes +
           expanded_groups(t) * lanes * 2 * sizeof(float);
}

constexpr size_t cached_weights = 192 << 10;  // bytes of weights that are multiplied with all rows, of a small L2
constexpr int most_tiles_together = 64;

int tiles_together_int8(const TileShape& t) {
    const size_t fitting = cached_weights / (expanded_tile_bytes(t) + 1) / weight_tiles * weight_tiles;
    return fitting < weight_tiles          ? weight_tiles
           : fitting > most_tiles_together ? most_tiles_together
                                           : static_cast<int>(fitting);
}
size_t scratch_int8(const TileShape& t, int) {
    return tiles_together_int8(t) * expanded_tile_bytes(t);
}

// A matrix product's 8-bit codes.
template <class V = Simd>
QUANT_INLINE void widen_steps(Bytes (&steps)[steps_per_block]) {
    if constexpr (Simd::matrix_dot) {
        for (int s = 0; s < steps_per_block; s += 2) V::widen_steps(steps[s], steps[s + 1]);
    }
}

template <int Bits>
QUANT_NOINLINE void expand(const TileShape& t, const uint8_t* tile, uint8_t* scratch, ExpandedTile* to) {
    float* scales = reinterpret_cast<float*>(scratch);
    float* offsets = scales + expanded_groups(t) * lanes;
    uint8_t* codes = reinterpret_cast<uint8_t*>(offsets + expanded_groups(t) * lanes);
    const bool has = has_offsets(t), zero_points = t.header == HeaderKind::integer;
    to->scales = scales;
    to->offsets = has ? offsets : nullptr;
    to->codes = Bits == 8 ? tile + t.header_bytes : codes;
    to->panel_bytes = Bits == 8 ? t.panel_bytes : static_cast<size_t>(t.panel_blocks) * steps_per_block * step_bytes;
    const uint8_t* panel = tile;
    for (int left = t.blocks; left > 0; panel += t.panel_bytes) {
        for (int g = 0; g < t.panel_groups; ++g, scales += lanes, offsets += lanes) {
            GroupScale group = load_scale(t, panel, g);
            Simd::store(scales, group.scale);
            if (zero_points) group.offset = Simd::mul(Simd::sub(Simd::set(0), group.offset), group.scale);
            if (has) Simd::store(offsets, group.offset);
        }
        const uint8_t* block = panel + t.header_bytes;
        for (int b = 0; b < t.panel_blocks && left > 0; ++b, --left, block += t.block_bytes) {
            if constexpr (Bits == 8) continue;
            Bytes steps[steps_per_block];
            load_block<Bits>(block, steps);
            widen_steps(steps);
            for (int s = 0; s < steps_per_block; ++s, codes += step_bytes) Simd::store_bytes(codes, steps[s]);
        }
    }
}

// CodeBits: of the codes as they are in memory, 8 once they are expanded.
template <int Bits, Groups G, int C, int CodeBits = 8>
QUANT_NOINLINE void multiply(const TileShape& t, const ExpandedTile* w, const uint8_t* x, const LinearOutput& out,
                             int first_row, int64_t first_tile, NextWeights next) {
    constexpr int T = weight_tiles;
    prefetch_output<T, C>(out, first_row, first_tile);
    Float y[T][C];
    QUANT_UNROLL
    for (int i = 0; i < T; ++i) {
        QUANT_UNROLL
        for (int c = 0; c < C; ++c) y[i][c] = Simd::set(0);
    }
    const bool offsets = w->offsets != nullptr;
    size_t at = 0, group = 0;  // of the panel's codes; of the group's scales
    for (int left = t.blocks; left > 0; at += w->panel_bytes) {
        if (G != Groups::longer) next.fetch(t.panel_blocks);  // not with each block: its loop has no register to spare
        size_t block = at;
        for (int g = 0; g < t.panel_groups && left > 0; ++g, group += lanes) {
            if constexpr (G == Groups::of_16) {
                ++g;
                QUANT_UNROLL
                for (int h = 0; h < 2; ++h) {
                    Int integer[T][C];
                    QUANT_UNROLL
                    for (int c = 0; c < C; ++c) {
                        QUANT_UNROLL
                        for (int i = 0; i < T; ++i)
                            integer[i][c] = Simd::set_int(load_scalar_int(x + 36 * C + 4 * (C * h + c)));
                    }
                    dot<Bits, T, C, 4>(
                        integer,
                        [&](int i, auto s) QUANT_INLINE_LAMBDA {
                            constexpr int step = decltype(s)::value;
                            return h == 0 ? load_dot_step<CodeBits, step>(w[i].codes + block)
                                          : load_dot_step<CodeBits, step + 4>(w[i].codes + block);
                        },
                        x + 16 * h);
                    QUANT_UNROLL
                    for (int i = 0; i < T; ++i) {
                        const Float scale = Simd::load(w[i].scales + group + h * lanes);
                        QUANT_UNROLL
                        for (int c = 0; c < C; ++c)
                            y[i][c] = Simd::fma(
                                Simd::mul(Simd::to_float(integer[i][c]), Simd::set(load_scalar(x + 32 * C + 4 * c))),
                                scale, y[i][c]);
                    }
                }
                group += lanes;
                block += CodeBits * step_bytes, x += int8_block_bytes * C, --left;
            } else {
                Float sum[T][C];
                QUANT_UNROLL
                for (int i = 0; i < T; ++i) {
                    QUANT_UNROLL
                    for (int c = 0; c < C; ++c) sum[i][c] = Simd::set(0);
                }
                for (int b = 0; b < (G == Groups::of_32 ? 1 : t.group_halves / 2) && left > 0; ++b, --left) {
                    Int integer[T][C];
                    QUANT_UNROLL
                    for (int c = 0; c < C; ++c) {
                        QUANT_UNROLL
                        for (int i = 0; i < T; ++i) integer[i][c] = Simd::set_int(load_scalar_int(x + 36 * C + 4 * c));
                    }
                    dot<Bits, T, C, 8>(
                        integer,
                        [&](int i, auto s) QUANT_INLINE_LAMBDA {
                            return load_dot_step<CodeBits, decltype(s)::value>(w[i].codes + block);
                        },
                        x);
                    QUANT_UNROLL
                    for (int c = 0; c < C; ++c) {
                        const Float scale = Simd::set(load_scalar(x + 32 * C + 4 * c));
                        QUANT_UNROLL
                        for (int i = 0; i < T; ++i)
                            sum[i][c] = G == Groups::of_32 ? Simd::mul(Simd::to_float(integer[i][c]), scale)
                                                           : Simd::fma(Simd::to_float(integer[i][c]), scale, sum[i][c]);
                    }
                    if (G == Groups::longer) next.fetch(1);
                    block += CodeBits * step_bytes, x += int8_block_bytes * C;
                }
                QUANT_UNROLL
                for (int i = 0; i < T; ++i) {
                    const Float scale = Simd::load(w[i].scales + group);
                    QUANT_UNROLL
                    for (int c = 0; c < C; ++c) y[i][c] = Simd::fma(sum[i][c], scale, y[i][c]);
                }
                if (offsets) {
                    QUANT_UNROLL
                    for (int i = 0; i < T; ++i) {
                        const Float offset = Simd::load(w[i].offsets + group);
                        QUANT_UNROLL
                        for (int c = 0; c < C; ++c)
                            y[i][c] = Simd::fma(Simd::set(load_scalar(x - 4 * C + 4 * c)), offset, y[i][c]);
                    }
                }
            }
        }
    }
    for (int c = 0; c < C; ++c)
        for (int i = 0; i < T; ++i) store_output(out, first_row + c, first_tile + i, y[i][c]);
}

// What differs between weights: how their codes are read, and how sums are kept.
struct Int8Functions {
    using MultiplyRow = void (*)(const TileShape&, const uint8_t* const* tiles, const uint8_t* x, const LinearOutput&,
                                 int64_t first_tile);
    MultiplyRow multiply_row, multiply_row_alone;  // code_streams tiles, or one
    void (*expand)(const TileShape&, const uint8_t* tile, uint8_t* scratch, ExpandedTile* to);
    using Multiply = void (*)(const TileShape&, const ExpandedTile* tiles, const uint8_t* x, const LinearOutput&,
                              int first_row, int64_t first_tile, NextWeights next);
    Multiply multiply[row_tile];         // [rows - 1]
    Multiply multiply_packed[row_tile];  // or null: of codes that are not expanded, which does not pay for few rows
};

template <int Bits, Groups G>
Int8Functions int8_functions_of() {
    // Codes of fewer bits may be taken as codes of more: the bound of their sums in 16 bits is only tighter.
    [[maybe_unused]] constexpr int multiply_bits = Simd::fused_dot && Simd::bias_8_bits == 0        ? 8
                                                   : Simd::fused_dot                                ? Bits == 8 ? 8 : 6
                                                   : Bits == 5 || (Bits == 4 && G == Groups::of_16) ? 6
                                                                                                    : Bits;
    Int8Functions f{nullptr, nullptr, expand<Bits>, {}, {}};
    if constexpr (direct_rows) {
        f.multiply_row = multiply_row<Bits, G, code_streams>;
        f.multiply_row_alone = multiply_row<Bits, G, 1>;
    }
    for (int count = 1; count <= row_tile; ++count)
        with_count(count, [&](auto c) {
            f.multiply[c - 1] = multiply<multiply_bits, G, decltype(c)::value>;
            if constexpr (Bits == 4 && multiply_bits == 8 && !Simd::matrix_dot)  // which takes widened steps
                f.multiply_packed[c - 1] = multiply<multiply_bits, G, decltype(c)::value, Bits>;
        });
    return f;
}

template <int Bits>
Int8Functions int8_functions(Groups groups) {
    switch (groups) {
        case Groups::of_16:
            return int8_functions_of<Bits, Groups::of_16>();
        case Groups::of_32:
            return int8_functions_of<Bits, Groups::of_32>();
        default:
            return int8_functions_of<Bits, Groups::longer>();
    }
}

Int8Functions int8_functions(const TileShape& t) {
    switch (t.element) {
        case Element::u4:
            return int8_functions<4>(groups_of(t));
        case Element::u5:
            return int8_functions<5>(groups_of(t));
        case Element::u6:
            return int8_functions<6>(groups_of(t));
        default:
            return int8_functions<8>(groups_of(t));
    }
}

void linear_int8(const LinearWeights& weights, const LinearInput& in, const LinearOutput& all, int first_tile,
                 int tiles, uint8_t* scratch) {
    const TileShape& t = *weights.shape;
    const Int8Functions functions = int8_functions(t);
    const int end = first_tile + tiles;
    const LinearOutput out = output_before(all, end);
    if (in.rows == 1 && direct_rows) {
        for_streams<code_streams>(weights, first_tile, end, [&](auto streams, int i, const uint8_t* const* w) {
            (streams == 1 ? functions.multiply_row_alone : functions.multiply_row)(t, w, in.activations, out, i);
        });
        return;
    }
    const RowTiles rows = row_tiles(in.rows, row_tile);
    const int together = tiles_together_int8(t);
    const bool packed = rows.tiles <= 2 && functions.multiply_packed[0];
    const auto expand_tile = packed ? expand<8> : functions.expand;  // of 8 bits: the scales only
    const auto* multiply_tiles = packed ? functions.multiply_packed : functions.multiply;
    for (int begin = first_tile; begin < end; begin += together) {
        const int padded = padded_tiles(end - begin < together ? end - begin : together, weight_tiles);
        ExpandedTile w[most_tiles_together];
        for (int j = 0; j < padded; ++j)
            expand_tile(t, tile_or_last(weights, begin + j, end), scratch + j * expanded_tile_bytes(t), w + j);
        for (int r = 0; r < rows.tiles; ++r) {
            const int first = tile_first(rows, r);
            for (int j = 0; j < padded; j += weight_tiles)
                multiply_tiles[tile_count(rows, r) - 1](
                    t, w + j, in.activations + first * in.row_bytes, out, first, begin + j,
                    next_weights(weights, begin + together + j, end, r, rows.tiles));
        }
    }
}

// ---- a8w8: activations are int8 per row already, weights 8 bit with one scale a row ------------------------------

template <int T, int C>
QUANT_NOINLINE void multiply_s8(const TileShape& t, const uint8_t* const* tiles, const uint8_t* x, const RowScale* rows,
                                const LinearOutput& out, int first_row, int64_t first_tile, NextWeights next) {
    prefetch_output<T, C>(out, first_row, first_tile);
    Int sum[T][C];
    QUANT_UNROLL
    for (int c = 0; c < C; ++c) {
        QUANT_UNROLL
        for (int i = 0; i < T; ++i) sum[i][c] = Simd::set_int(-code_bias(t) * rows[c].sum);
    }
    const uint8_t* codes[T];
    for (int i = 0; i < T; ++i) codes[i] = tiles[i] + t.header_bytes;
    pair_sums<8>(sum);
    size_t block = 0;
    for (int b = 0; b < t.blocks; ++b, block += steps_per_block * step_bytes, x += block_cols * C) {
        accumulate<8, T, C, 8>(
            sum, [&](int i, int s) QUANT_INLINE_LAMBDA { return Simd::load_bytes(codes[i] + block + s * step_bytes); },
            x);
        next.fetch(1);
        if constexpr (C == 1) {
            for (int i = 0; i < T; ++i) prefetch_ahead<T>(codes[i] + block, steps_per_block * step_bytes);
        }
    }
    unpair_sums<8>(sum);
    for (int i = 0; i < T; ++i) {
        const ExactResult result(t, tiles[i]);
        for (int c = 0; c < C; ++c) store_output(out, first_row + c, first_tile + i, result.of(sum[i][c], rows[c]));
    }
}

void linear_s8(const LinearWeights& weights, const LinearInput& in, const LinearOutput& all, int first_tile, int tiles,
               uint8_t*) {
    const TileShape& t = *weights.shape;
    const int end = first_tile + tiles;
    const LinearOutput out = output_before(all, end);
    if (in.rows == 1) {
        for_streams<code_streams>(weights, first_tile, end, [&](auto streams, int i, const uint8_t* const* w) {
            multiply_s8<decltype(streams)::value, 1>(t, w, in.activations, in.row_scales, out, 0, i, {nullptr, 0});
        });
        return;
    }
    const RowTiles rows = row_tiles(in.rows, s8_row_tile);
    const int together = tiles_together_int8(t);
    for (int begin = first_tile; begin < end; begin += together) {
        const int padded = padded_tiles(end - begin < together ? end - begin : together, weight_tiles);
        const uint8_t* packed[most_tiles_together];
        for (int j = 0; j < padded; ++j) packed[j] = tile_or_last(weights, begin + j, end);
        for (int r = 0; r < rows.tiles; ++r) {
            const int first = tile_first(rows, r);
            with_count<s8_row_tile>(tile_count(rows, r), [&](auto count) QUANT_INLINE_LAMBDA {
                for (int j = 0; j < padded; j += weight_tiles)
                    multiply_s8<weight_tiles, decltype(count)::value>(
                        t, packed + j, in.activations + first * in.row_bytes, in.row_scales + first, out, first,
                        begin + j, next_weights(weights, begin + together + j, end, r, rows.tiles));
            });
        }
    }
}

size_t scratch_s8(const TileShape&, int) {
    return 0;
}
