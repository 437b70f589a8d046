// What all linears share: which tiles of a weight and rows of activations meet, and where the results go. Included
// inside an unnamed namespace after codes.inl; the including file defines row_tile, weight_tiles and
// code_streams: tiles of integer codes that one row is multiplied with side by side.

// f(Constant<C>) for C = count <= row_tile.
template <int C = row_tile, class F>
QUANT_INLINE auto with_count(int count, F f) {
    if constexpr (C > 1) {
        if (count < C) return with_count<C - 1>(count, f);
    }
    return f(Constant<C>{});
}

// The tile `index` past `first` of a run, and past its end the last again, whose results are not stored.
QUANT_INLINE const uint8_t* tile_or_last(const LinearWeights& weights, int tile, int end) {
    return weights.tiles + (tile < end ? tile : end - 1) * weights.shape->tile_bytes;
}
QUANT_INLINE int padded_tiles(int tiles, int together) {
    return (tiles + together - 1) / together * together;
}
// The output without the columns of tiles from `end` on.
QUANT_INLINE LinearOutput output_before(LinearOutput out, int end) {
    const int64_t rows = static_cast<int64_t>(end) * lanes;
    if (out.rows > rows) out.rows = rows;
    return out;
}

// One row of activations is multiplied with T tiles of weights side by side where a processor reads several streams
// from memory faster than one: they also share what is loaded of the row. f(T or 1, first tile, pointers to as many
// tiles).
template <int T, class F>
QUANT_INLINE void for_streams(const LinearWeights& weights, int first, int end, F f) {
    if constexpr (T > 1) {
        if (weights.one_stream) return for_streams<1>(weights, first, end, f);
    }
    for (int i = first; i < end; i += T) {
        const uint8_t* tiles[T];
        for (int j = 0; j < T; ++j) tiles[j] = tile_or_last(weights, i + j, end);
        f(Constant<T>{}, i, tiles);
    }
}

// While [p, p + bytes) of one of T streams is multiplied. The processor's own prefetching ends with every page. Where
// that is what keeps one stream from the memory's speed, it starts again in time if one line of the next page was asked
// for; all other lines are then best left to it, unless much is computed with each (Slow), which it does not wait for.
template <int T, bool Slow = false>
QUANT_INLINE void prefetch_ahead(const uint8_t* p, size_t bytes) {
    constexpr uintptr_t page = 4096;
    if constexpr (T == 1 && code_streams > 1 && !Slow) {
        const uintptr_t at = reinterpret_cast<uintptr_t>(p) % page;
        if (at < bytes) Simd::prefetch(p - at + page);
    } else {
        constexpr size_t distance = T > 1 ? 512 : code_streams > 1 ? page : 1024;
        for (size_t i = 0; i < bytes; i += 64) Simd::prefetch(p + distance + i);
    }
}

// Weights that come next are fetched into the second-level cache while a product of several rows keeps the units busy:
// so many bytes with each of its blocks.
struct NextWeights {
    const uint8_t* at;
    size_t step;
    QUANT_INLINE void fetch(int blocks) {
        const uint8_t* const end = at + blocks * step;
        for (; at < end; at += 64) Simd::prefetch_far(at);
        at = end;
    }
};
// While row tile r passes: its share of tiles [first, first + weight_tiles), if they are before `end`. A few row tiles
// fetch all there is, so that memory has their whole time.
QUANT_INLINE NextWeights next_weights(const LinearWeights& weights, int first, int end, int r, int row_tiles) {
    const TileShape& t = *weights.shape;
    const size_t shares = row_tiles < 4 ? row_tiles : 4, bytes = weight_tiles * t.tile_bytes / shares;
    if (first + weight_tiles > end || r >= 4) return {nullptr, 0};
    return {weights.tiles + first * t.tile_bytes + r * bytes, (bytes + t.blocks - 1) / t.blocks};
}

// Columns [lanes * tile, ...) of one row of the output. Each step is rounded on its own.
QUANT_NOINLINE void store_output(const LinearOutput& out, int row, int64_t tile, Float y) {
    const int64_t first = tile * lanes, left = out.rows - first;
    float* to = out.out + row * out.out_stride + first;
    const float* residual = out.add ? out.add + row * out.add_stride + first : nullptr;
    if (left >= lanes) {
        if (out.bias) y = Simd::add(y, Simd::load(out.bias + first));
        if (residual) y = Simd::add(y, Simd::load(residual));
        Simd::store(to, y);
    } else if (left > 0) {
        const int n = static_cast<int>(left);
        if (out.bias) y = Simd::add(y, Simd::load(out.bias + first, n));
        if (residual) y = Simd::add(y, Simd::load(residual, n));
        Simd::store(to, y, n);
    }
}

// The lines that a product will write, so that they are here when it is done.
template <int T, int C>
QUANT_INLINE void prefetch_output(const LinearOutput& out, int first_row, int64_t first_tile) {
    for (int c = 0; c < C; ++c)
        for (int i = 0; i < T; ++i)
            Simd::prefetch(out.out + (first_row + c) * out.out_stride + (first_tile + i) * lanes);
}

// a8w8: int8 activations with one scale a row, 8-bit weights with one scale a row. Exact sums, then, each step rounded
// once:  y = (float(sum x (q - z)) * a) * s,  or with a minimum  y = (float(sum x q) * a) * s + (float(sum x) * a) * m.
struct ExactResult {
    HeaderKind header;
    GroupScale w;
    Int zero_point;
    QUANT_INLINE ExactResult(const TileShape& t, const uint8_t* tile)
        : header(t.header),
          w(load_scale(t, tile, 0)),
          zero_point(header == HeaderKind::integer ? Simd::round(w.offset) : Simd::set_int(0)) {}
    // sum: of x times the codes less the bias of all codes.
    QUANT_INLINE Float of(Int sum, const RowScale& x) const {
        const Float a = Simd::set(x.scale);
        const Int exact = Simd::sub(sum, Simd::mul(Simd::set_int(x.sum), zero_point));
        const Float y = Simd::mul(Simd::mul(Simd::to_float(exact), a), w.scale);
        if (header != HeaderKind::minimum) return y;
        return Simd::add(y, Simd::mul(Simd::mul(Simd::set(static_cast<float>(x.sum)), a), w.offset));
    }
};
