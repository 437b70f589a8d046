// Products of float activations with weights that are decoded first: several rows share some blocks of decoded weights.
// Included inside an unnamed namespace after linear.inl; the including file defines float_streams, which is
// code_streams for these weights. A Product says what is multiplied:
//
//     block_words                     32-bit words of a weight row's block of 32 columns, decoded, and of activations
//     scaled                          decoded weights have a scale of their own for each chain
//     multiply_add(w, x, sum)         sum + the products of a word
//     functions(shape)                how weights are decoded: FloatFunctions
//     straight_rows                   one row is multiplied straight from the packed tile
//
// One output is the sum, in order, of the (scaled) sums of a chain of words each, for any number of rows and threads.
// Short chains overlap: one row of activations needs no second weight tile to hide their latency.

constexpr int chain = 16;  // words

struct FloatFunctions {
    // float_streams tiles, or one, as many results; null without straight_rows
    using MultiplyRow = void (*)(const TileShape&, const uint8_t* const* tiles, const float* x, Float* y);
    MultiplyRow multiply_row, multiply_row_alone;
    void (*decode_blocks)(const TileShape&, const uint8_t* tile, int first, int count, float* to);
};

template <int T>
struct RowReaders {
    TileReader stream[T];
    RowReaders(const TileShape& t, const uint8_t* const* tiles)
        : RowReaders(t, tiles, std::make_integer_sequence<int, T>{}) {}

  private:
    template <int... I>
    RowReaders(const TileShape& t, const uint8_t* const* tiles, std::integer_sequence<int, I...>)
        : stream{{t, tiles[I], 0}...} {}
};

constexpr int chunk_blocks = 8;     // decoded at a time
constexpr int row_tiles_kept = 64;  // row tiles whose sums are kept from chunk to chunk

// Floats of one weight tile's decoded block: for each chain its scales [lanes], if any, and its words [chain][lanes].
template <class Product>
constexpr int decoded_block = (Product::block_words / chain) * (chain + (Product::scaled ? 1 : 0)) * lanes;
template <class Product>
constexpr int decoded_chunk = chunk_blocks* decoded_block<Product>;

template <class Product>
int tiles_together_decoded(const TileShape&) {
    return static_cast<int>(cached_weights / (2 * decoded_chunk<Product> * sizeof(float)) / weight_tiles *
                            weight_tiles);
}
int rows_kept(int rows) {
    const int tiles = row_tiles(rows, row_tile).tiles;
    return (tiles < row_tiles_kept ? tiles : row_tiles_kept) * row_tile;
}
template <class Product>
size_t scratch_decoded(const TileShape& t, int max_rows) {
    return sizeof(float) * tiles_together_decoded<Product>(t) * (decoded_chunk<Product> + rows_kept(max_rows) * lanes);
}

template <class Product, int C>
QUANT_NOINLINE void multiply_decoded(const float* w, int chains, const float* x, float* sums) {
    constexpr int T = weight_tiles, next_tile = decoded_chunk<Product>;
    Float y[T][C];
    QUANT_UNROLL
    for (int i = 0; i < T; ++i) {
        QUANT_UNROLL
        for (int c = 0; c < C; ++c) y[i][c] = Simd::load(sums + (c * T + i) * lanes);
    }
    for (; chains > 0; --chains) {
        const float* scales = w;
        if (Product::scaled) w += lanes;
        Float sum[T][C];
        QUANT_UNROLL
        for (int i = 0; i < T; ++i) {
            QUANT_UNROLL
            for (int c = 0; c < C; ++c) sum[i][c] = Simd::set(0);
        }
        for (int n = 0; n < chain; ++n, w += lanes, x += C) {
            Float column[T];
            QUANT_UNROLL
            for (int i = 0; i < T; ++i) column[i] = Simd::load(w + i * next_tile);
            QUANT_UNROLL
            for (int c = 0; c < C; ++c) {
                const Float a = Simd::set(x[c]);
                QUANT_UNROLL
                for (int i = 0; i < T; ++i) sum[i][c] = Product::multiply_add(column[i], a, sum[i][c]);
            }
        }
        QUANT_UNROLL
        for (int i = 0; i < T; ++i) {
            if constexpr (Product::scaled) {
                const Float scale = Simd::load(scales + i * next_tile);
                QUANT_UNROLL
                for (int c = 0; c < C; ++c) y[i][c] = Simd::fma(sum[i][c], scale, y[i][c]);
            } else {
                QUANT_UNROLL
                for (int c = 0; c < C; ++c) y[i][c] = Simd::add(y[i][c], sum[i][c]);
            }
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

template <class Product>
void linear_decoded(const LinearWeights& weights, const LinearInput& in, const LinearOutput& all, int first_tile,
                    int tiles, uint8_t* scratch) {
    const TileShape& t = *weights.shape;
    const FloatFunctions functions = Product::functions(t);
    const int end = first_tile + tiles;
    const LinearOutput out = output_before(all, end);
    if (in.rows == 1 && Product::straight_rows) {
        const float* x = reinterpret_cast<const float*>(in.activations);
        for_streams<float_streams>(weights, first_tile, end, [&](auto streams, int i, const uint8_t* const* tiles) {
            Float y[decltype(streams)::value];
            (streams == 1 ? functions.multiply_row_alone : functions.multiply_row)(t, tiles, x, y);
            for (int j = 0; j < streams; ++j) store_output(out, 0, i + j, scale_row(in, 0, y[j]));
        });
        return;
    }
    const RowTiles rows = row_tiles(in.rows, row_tile);
    const int together = tiles_together_decoded<Product>(t), kept_rows = rows_kept(in.rows);
    float* decoded = reinterpret_cast<float*>(scratch);         // [tiles][chunk]
    float* sums = decoded + together * decoded_chunk<Product>;  // [tiles][rows][lanes], a pair of tiles side by side
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
                                            decoded + j * decoded_chunk<Product>);
                for (int r = kept; r < kept_end; ++r) {
                    const int first = tile_first(rows, r), count = tile_count(rows, r);
                    const float* x = reinterpret_cast<const float*>(in.activations + first * in.row_bytes) +
                                     static_cast<int64_t>(b) * Product::block_words * count;
                    with_count(count, [&](auto c) QUANT_INLINE_LAMBDA {
                        for (int j = 0; j < padded; j += weight_tiles)
                            multiply_decoded<Product, decltype(c)::value>(decoded + j * decoded_chunk<Product>,
                                                                          blocks * (Product::block_words / chain), x,
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
