// Products of float activations with weights that are decoded first: several rows share some blocks of decoded weights.
// Included inside an unnamed namespace after linear.inl; the including file defines float_row_tile,
// float_weight_tiles and float_streams, which are row_tile, weight_tiles and code_streams for these weights. A Product
// says what is multiplied:
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

// Some words of a few weight tiles are decoded into the first-level cache, where they stay while all rows pass by: of a
// row, which comes from the second, less is read than of the weights. What a row tile's sums are so far passes by as
// well, so that registers hold the sums of a chain only.
constexpr int chunk_words = 128;
constexpr int row_tiles_kept = 64;                       // that pass by at most
constexpr int word_floats = float_weight_tiles * lanes;  // of the decoded weights

// Floats of a decoded chain: its scales [tile][lanes], if any, and its words [chain][tile][lanes].
template <class Product>
constexpr int decoded_chain = (chain + (Product::scaled ? 1 : 0)) * word_floats;
template <class Product>
constexpr int decoded_chunk = chunk_words / chain* decoded_chain<Product>;

int tiles_together_decoded(const TileShape&) {
    return 2 * float_weight_tiles;
}
int rows_kept(int rows) {
    const int tiles = row_tiles(rows, float_row_tile).tiles;
    return (tiles < row_tiles_kept ? tiles : row_tiles_kept) * float_row_tile;
}
template <class Product>
size_t scratch_decoded(const TileShape& t, int max_rows) {
    return sizeof(float) * (decoded_chunk<Product> + tiles_together_decoded(t) * rows_kept(max_rows) * lanes);
}

// Adds the products of a chain to sums [row][tile][lanes], while the next row tile's activations are fetched. Compilers
// that see several chains keep sums in more registers than there are.
template <class Product, int C>
QUANT_NOINLINE void multiply_chain(const float* w, const float* x, const float* next_x, float* sums) {
    constexpr int T = float_weight_tiles, line = 16;
    for (int i = 0; i < chain * C; i += line) Simd::prefetch(next_x + i);
    const float* scales = w;
    if (Product::scaled) w += word_floats;
    Float sum[T][C];
    QUANT_UNROLL
    for (int i = 0; i < T; ++i) {
        QUANT_UNROLL
        for (int c = 0; c < C; ++c) sum[i][c] = Simd::set(0);
    }
    for (int n = 0; n < chain; ++n, w += word_floats, x += C) {
        Float column[T];
        QUANT_UNROLL
        for (int i = 0; i < T; ++i) column[i] = Simd::load(w + i * lanes);
        QUANT_UNROLL
        for (int c = 0; c < C; ++c) {
            const Float a = Simd::set(x[c]);
            QUANT_UNROLL
            for (int i = 0; i < T; ++i) sum[i][c] = Product::multiply_add(column[i], a, sum[i][c]);
        }
    }
    QUANT_UNROLL
    for (int c = 0; c < C; ++c) {
        QUANT_UNROLL
        for (int i = 0; i < T; ++i, sums += lanes) {
            if constexpr (Product::scaled)
                Simd::store(sums, Simd::fma(sum[i][c], Simd::load(scales + i * lanes), Simd::load(sums)));
            else
                Simd::store(sums, Simd::add(Simd::load(sums), sum[i][c]));
        }
    }
}

template <class Product, int C>
void multiply_decoded(const float* w, int chains, const float* x, const float* next_x, float* sums) {
    for (; chains > 0; --chains, w += decoded_chain<Product>, x += chain * C, next_x += chain * C)
        multiply_chain<Product, C>(w, x, next_x, sums);
}

QUANT_INLINE Float scale_row(const LinearInput& in, int row, Float y) {
    return in.row_scales ? Simd::mul(y, Simd::set(in.row_scales[row].scale)) : y;
}

// The blocks of a tile from `first` on, which are decoded next: a share with each row tile.
QUANT_INLINE NextWeights next_chunk(const TileShape& t, const uint8_t* tile, int first, int blocks, int row_tiles) {
    if (first >= t.blocks) return {nullptr, 0};
    const size_t block_bytes = t.tile_bytes / t.blocks, bytes = blocks * block_bytes;
    return {tile + first * block_bytes, (bytes + row_tiles - 1) / row_tiles};
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
    constexpr int T = float_weight_tiles, chunk_blocks = chunk_words / Product::block_words;
    const RowTiles rows = row_tiles(in.rows, float_row_tile), passes = row_tiles(rows.tiles, row_tiles_kept);
    const int together = tiles_together_decoded(t), kept_rows = rows_kept(in.rows);
    float* decoded = reinterpret_cast<float*>(scratch);
    float* sums = decoded + decoded_chunk<Product>;  // [tiles / T][rows][T][lanes]
    const auto sums_of = [&](int j, int row) QUANT_INLINE_LAMBDA {
        return sums + (static_cast<size_t>(j / T) * kept_rows + row) * word_floats;
    };
    const auto x_of = [&](int r, int block) QUANT_INLINE_LAMBDA {
        return reinterpret_cast<const float*>(in.activations + tile_first(rows, r) * in.row_bytes) +
               static_cast<int64_t>(block) * Product::block_words * tile_count(rows, r);
    };
    for (int begin = first_tile; begin < end; begin += together) {
        const int count = end - begin < together ? end - begin : together;
        for (int pass = 0; pass < passes.tiles; ++pass) {
            const int kept = tile_first(passes, pass), kept_end = kept + tile_count(passes, pass);
            const int first_row = tile_first(rows, kept), end_row = tile_first(rows, kept_end);
            std::memset(sums, 0, sizeof(float) * padded_tiles(count, T) * kept_rows * lanes);
            for (int b = 0; b < t.blocks; b += chunk_blocks) {
                const int blocks = b + chunk_blocks < t.blocks ? chunk_blocks : t.blocks - b;
                for (int j = 0; j < count; j += T) {
                    for (int i = 0; i < T; ++i)
                        functions.decode_blocks(t, tile_or_last(weights, begin + j + i, end), b, blocks,
                                                decoded + i * lanes);
                    const bool last = j + T >= count;
                    NextWeights next[T];
                    for (int i = 0; i < T; ++i)
                        next[i] = next_chunk(t, tile_or_last(weights, begin + (last ? 0 : j + T) + i, end),
                                             last ? b + chunk_blocks : b, chunk_blocks, kept_end - kept);
                    for (int r = kept; r < kept_end; ++r) {
                        for (int i = 0; i < T; ++i) next[i].fetch(1);
                        const int first = tile_first(rows, r);
                        with_count<float_row_tile>(tile_count(rows, r), [&](auto c) QUANT_INLINE_LAMBDA {
                            multiply_decoded<Product, decltype(c)::value>(
                                decoded, blocks * (Product::block_words / chain), x_of(r, b),
                                x_of(r + 1 < kept_end ? r + 1 : r, b), sums_of(j, first - first_row));
                        });
                    }
                }
            }
            for (int r = first_row; r < end_row; ++r)
                for (int j = 0; j < count; ++j)
                    store_output(out, r, begin + j,
                                 scale_row(in, r, Simd::load(sums_of(j, r - first_row) + j % T * lanes)));
        }
    }
}
