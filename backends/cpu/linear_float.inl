// Float products: float and e4m3 weights, and any quantized weight decoded in registers, exactly as THE decode does.
// A word is a float32. Included inside an unnamed namespace after linear_decoded.inl and tile_reader.inl; the including
// file defines direct_rows: whether one row is multiplied straight from the packed tile.

void prepare_f32(const float* in, int64_t stride, int64_t cols, int blocks, int first_row, int rows, uint8_t* to) {
    float* out = reinterpret_cast<float*>(to);  // [column][row]
    for (int64_t k = 0; k < static_cast<int64_t>(blocks) * block_cols; k += block_cols, out += block_cols * rows) {
        const int n = cols - k < block_cols ? static_cast<int>(cols - k) : block_cols;
        for (int c = 0; c < rows; ++c) {
            const float* row = in + (first_row + c) * stride + k;
            for (int i = 0; i < n; ++i) out[i * rows + c] = row[i];
            for (int i = n; i < block_cols; ++i) out[i * rows + c] = 0;
        }
    }
}

void prepare_e4m3(const uint8_t* codes, int64_t stride, int blocks, int first_row, int rows, uint8_t* to) {
    float* out = reinterpret_cast<float*>(to);
    for (int64_t k = 0; k < static_cast<int64_t>(blocks) * block_cols; k += lanes, out += lanes * rows)
        for (int c = 0; c < rows; ++c) {
            float values[lanes];
            Simd::store(values, Simd::load_e4m3(codes + (first_row + c) * stride + k));
            for (int i = 0; i < lanes; ++i) out[i * rows + c] = values[i];
        }
}

// ---- Decoding columns of a tile ----------------------------------------------------------------------------------

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

// ---- One row -----------------------------------------------------------------------------------------------------

template <Element E, int T>
void multiply_row_float(const TileShape& t, const uint8_t* const* tiles, const float* x, Float* y) {
    RowReaders<T> readers(t, tiles);
    for (int i = 0; i < T; ++i) y[i] = Simd::set(0);
    float last[block_cols];
    for (int64_t left = t.cols; left > 0; left -= block_cols, x += block_cols) {
        const float* a = x;
        if (left < block_cols) {
            std::memset(last, 0, sizeof last);
            std::memcpy(last, x, static_cast<size_t>(left) * sizeof(float));
            a = last;
        }
        const uint8_t* blocks[T];
        for (int i = 0; i < T; ++i) {
            blocks[i] = readers.stream[i].next();
            prefetch_ahead<T>(blocks[i], t.block_bytes);
        }
        Float sum[T][2];
        for (int i = 0; i < T; ++i) sum[i][0] = sum[i][1] = Simd::set(0);
        unrolled<block_cols>([&](auto k) QUANT_INLINE_LAMBDA {
            const Float column = Simd::set(a[k]);
            QUANT_UNROLL
            for (int i = 0; i < T; ++i) {
                const Float w = decode_column<E, decltype(k)::value>(blocks[i], readers.stream[i].groups[k / chain]);
                sum[i][k / chain] = Simd::fma(w, column, sum[i][k / chain]);
            }
        });
        QUANT_UNROLL
        for (int i = 0; i < T; ++i) y[i] = Simd::add(Simd::add(y[i], sum[i][0]), sum[i][1]);
    }
}

// ---- Several rows ------------------------------------------------------------------------------------------------

// As multiply_decoded takes them.
template <Element E>
void decode_blocks(const TileShape& t, const uint8_t* tile, int first, int count, float* to) {
    TileReader reader(t, tile, first);
    for (int b = 0; b < count; ++b, to += block_cols * word_floats) {
        const uint8_t* block = reader.next();
        unrolled<block_cols>([&](auto k) QUANT_INLINE_LAMBDA {
            Simd::store(to + k * word_floats, decode_column<E, decltype(k)::value>(block, reader.groups[k / 16]));
        });
    }
}

template <Element E>
FloatFunctions float_functions_of() {
    if constexpr (direct_rows)
        return {multiply_row_float<E, float_streams>, multiply_row_float<E, 1>, decode_blocks<E>};
    return {nullptr, nullptr, decode_blocks<E>};
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

struct FloatProduct {
    static constexpr int block_words = block_cols;
    static constexpr bool scaled = false, straight_rows = direct_rows;
    QUANT_INLINE static Float multiply_add(Float w, Float x, Float sum) { return Simd::fma(w, x, sum); }
    static FloatFunctions functions(const TileShape& t) { return float_functions(t.element); }
};
