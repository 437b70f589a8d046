// Products of bf16: bf16 weights with activations rounded to bf16, and e4m3 weights, scaled after each block of
// columns, with e4m3 activations, whose products are exact. A word is a pair of columns. Included inside an unnamed
// namespace after linear_decoded.inl, tile_reader.inl and the vector vocabulary's Pairs.

constexpr int pair_words = block_cols / 2;

// Rows of pairs to [word][row].
QUANT_INLINE void put_pairs(Float pairs, int rows, float* to) {
    float words[pair_words];
    Simd::store(words, pairs);
    for (int i = 0; i < pair_words; ++i) to[i * rows] = words[i];
}

void prepare_bf16(const float* in, int64_t stride, int64_t cols, int blocks, int first_row, int rows, uint8_t* to) {
    float* out = reinterpret_cast<float*>(to);
    for (int64_t k = 0; k < static_cast<int64_t>(blocks) * block_cols; k += block_cols, out += pair_words * rows) {
        const int n = cols - k < block_cols ? static_cast<int>(cols - k) : block_cols;
        for (int c = 0; c < rows; ++c) {
            const float* row = in + (first_row + c) * stride + k;
            put_pairs(Pairs::round(Simd::load(row, n), n > lanes ? Simd::load(row + lanes, n - lanes) : Simd::set(0)),
                      rows, out + c);
        }
    }
}

void prepare_e4m3_pairs(const uint8_t* codes, int64_t stride, int blocks, int first_row, int rows, uint8_t* to) {
    float* out = reinterpret_cast<float*>(to);
    for (int64_t k = 0; k < static_cast<int64_t>(blocks) * block_cols; k += block_cols, out += pair_words * rows)
        for (int c = 0; c < rows; ++c) put_pairs(Pairs::load_e4m3(codes + (first_row + c) * stride + k), rows, out + c);
}

// Columns 2P and 2P + 1 of a block.
template <Element E, int P>
QUANT_INLINE Float decode_pair(const uint8_t* block) {
    if constexpr (E == Element::bf16)
        return Pairs::interleave(Simd::load(reinterpret_cast<const float*>(block + 4 * P * lanes)));
    else
        return Pairs::interleave(Pairs::load_e4m3(block + 2 * P * lanes));
}

template <Element E, int T>
void multiply_row_pairs(const TileShape& t, const uint8_t* const* tiles, const float* x, Float* y) {
    RowReaders<T> readers(t, tiles);
    for (int i = 0; i < T; ++i) y[i] = Simd::set(0);
    for (int b = 0; b < t.blocks; ++b, x += pair_words) {
        const uint8_t* blocks[T];
        Float sum[T];
        for (int i = 0; i < T; ++i) {
            blocks[i] = readers.stream[i].next();
            prefetch_ahead<T>(blocks[i], t.block_bytes);
            sum[i] = Simd::set(0);
        }
        unrolled<pair_words>([&](auto p) QUANT_INLINE_LAMBDA {
            const Float pair = Simd::set(x[p]);
            QUANT_UNROLL
            for (int i = 0; i < T; ++i)
                sum[i] = Pairs::multiply_add(decode_pair<E, decltype(p)::value>(blocks[i]), pair, sum[i]);
        });
        QUANT_UNROLL
        for (int i = 0; i < T; ++i) y[i] = Simd::fma(sum[i], readers.stream[i].groups[0].scale, y[i]);
    }
}

template <Element E>
struct PairProduct {
    static constexpr int block_words = pair_words;
    static constexpr bool scaled = E == Element::e4m3, straight_rows = true;
    QUANT_INLINE static Float multiply_add(Float w, Float x, Float sum) { return Pairs::multiply_add(w, x, sum); }
    static FloatFunctions functions(const TileShape&);
};

// As multiply_decoded takes them.
template <Element E>
void decode_pairs(const TileShape& t, const uint8_t* tile, int first, int count, float* to) {
    TileReader reader(t, tile, first);
    for (int b = 0; b < count; ++b, to += pair_words * word_floats) {
        const uint8_t* block = reader.next();
        if constexpr (PairProduct<E>::scaled) {
            Simd::store(to, reader.groups[0].scale);
            to += word_floats;
        }
        unrolled<pair_words>([&](auto p) QUANT_INLINE_LAMBDA {
            Simd::store(to + p * word_floats, decode_pair<E, decltype(p)::value>(block));
        });
    }
}

template <Element E>
FloatFunctions PairProduct<E>::functions(const TileShape&) {
    return {multiply_row_pairs<E, float_streams>, multiply_row_pairs<E, 1>, decode_pairs<E>};
}
static_assert(pair_words == chain, "a chain is a block, which has one scale");

void linear_pairs(const LinearWeights& weights, const LinearInput& in, const LinearOutput& out, int first_tile,
                  int tiles, uint8_t* scratch) {
    (weights.shape->element == Element::bf16
         ? linear_decoded<PairProduct<Element::bf16>>
         : linear_decoded<PairProduct<Element::e4m3>>)(weights, in, out, first_tile, tiles, scratch);
}
size_t scratch_pairs(const TileShape& t, int max_rows) {
    return scratch_decoded<PairProduct<Element::e4m3>>(t, max_rows);  // with scales it is more
}
