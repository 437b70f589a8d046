// Attention of a tile of queries (rows of one sequence x the query heads of one KV head) over the pages of the cache,
// with the softmax built up page by page. Included inside an unnamed namespace after rowwise.inl.
//
// Where all queries fit one product, codes of f16 become floats as it loads them; otherwise each page's codes are
// converted once for all queries. The scales of a page's positions multiply scores and weights. A query's own
// operations and their order do not depend on what else is in the tile, and a page that is masked for it changes
// nothing.

// Queries multiplied together: all, if they are few, else so many that four vectors of a row stay in registers.
constexpr int query_tile = Simd::float_sums < 16 ? Simd::float_sums / 2 : 8;
constexpr int many_query_tile = Simd::float_sums < 16 ? query_tile : Simd::float_sums / 4;
constexpr int vectors_together(int queries) {
    return 4 * queries <= Simd::float_sums ? 4 : 2 * queries <= Simd::float_sums ? 2 : 1;
}

// Floats in a thread's scratch. Queries lie one after the other: row by row, head by head.
struct AttentionScratch {
    float *k, *v;    // [head_dim][64], [64][head_dim]
    float* q;        // tiles of C queries: [head_dim][C]
    float* weights;  // [queries][64]: scores, then their exponentials
    float* mean;     // [queries][head_dim]: sum of weight * v
    float *largest, *total;
    float *k_scales, *v_scales;  // [64] each, 1 in a cache of f16
};
QUANT_INLINE AttentionScratch attention_scratch(uint8_t* scratch, int queries, int head_dim) {
    AttentionScratch s;
    float* at = reinterpret_cast<float*>(scratch);
    const int64_t page = static_cast<int64_t>(page_positions) * head_dim,
                  each = static_cast<int64_t>(queries) * head_dim;
    s.k = at;
    s.v = s.k + page;
    s.q = s.v + page;
    s.mean = s.q + each;
    s.weights = s.mean + each;
    s.largest = s.weights + static_cast<int64_t>(queries) * page_positions;
    s.total = s.largest + queries;
    s.k_scales = s.total + queries;
    s.v_scales = s.k_scales + page_positions;
    return s;
}
size_t scratch_attention(int max_queries, int head_dim) {
    return sizeof(float) * (2 * static_cast<size_t>(page_positions) * (head_dim + 1) +
                            static_cast<size_t>(max_queries) * (2 * head_dim + page_positions + 2));
}

// Rows of a page, as vectors of floats.
struct FloatRows {
    const float* at;
    int64_t stride;
    QUANT_INLINE FloatRows from(int64_t col) const { return {at + col, stride}; }
    QUANT_INLINE Float load(int col) const { return Simd::load(at + col); }
    QUANT_INLINE void fetch(int) const {}
    QUANT_INLINE void step() { at += stride; }
};
struct HalfRows {
    const uint16_t *at, *next;  // next: of the page that comes next, which is fetched meanwhile
    int64_t stride;
    QUANT_INLINE HalfRows from(int64_t col) const { return {at + col, next + col, stride}; }
    QUANT_INLINE Float load(int col) const { return Simd::load_f16(at + col); }
    QUANT_INLINE void fetch(int cols) const {
        for (int col = 0; col < cols; col += 32) Simd::prefetch_far(next + col);
    }
    QUANT_INLINE void step() {
        at += stride;
        next += stride;
    }
};

QUANT_INLINE HalfRows half_rows(const uint8_t* at, const uint8_t* next, int64_t stride) {
    return {reinterpret_cast<const uint16_t*>(at), reinterpret_cast<const uint16_t*>(next), stride};
}

// out[c][j] (+)= sum over i < n of x(c, i) * rows[i][j], for V vectors; x(c, i) = x[c * xc + i * xi].
template <int C, int V, bool Accumulate, class Rows>
QUANT_INLINE void multiply_page(const float* x, int64_t xc, int64_t xi, Rows rows, int n, float* out,
                                int64_t out_stride) {
    Float sum[C][V];
    QUANT_UNROLL
    for (int c = 0; c < C; ++c) {
        QUANT_UNROLL
        for (int j = 0; j < V; ++j)
            sum[c][j] = Accumulate ? Simd::load(out + c * out_stride + j * lanes) : Simd::set(0);
    }
    for (int i = 0; i < n; ++i, rows.step(), x += xi) {
        Float row[V];
        QUANT_UNROLL
        for (int j = 0; j < V; ++j) row[j] = rows.load(j * lanes);
        rows.fetch(V * lanes);
        QUANT_UNROLL
        for (int c = 0; c < C; ++c) {
            const Float a = Simd::set(x[c * xc]);
            QUANT_UNROLL
            for (int j = 0; j < V; ++j) sum[c][j] = Simd::fma(a, row[j], sum[c][j]);
        }
    }
    QUANT_UNROLL
    for (int c = 0; c < C; ++c) {
        QUANT_UNROLL
        for (int j = 0; j < V; ++j) Simd::store(out + c * out_stride + j * lanes, sum[c][j]);
    }
}

// All columns: `cols` is a multiple of the lanes.
template <int C, bool Accumulate, class Rows>
QUANT_NOINLINE void multiply_page_columns(const float* x, int64_t xc, int64_t xi, const Rows& rows, int n, int cols,
                                          float* out, int64_t out_stride) {
    constexpr int V = vectors_together(C);
    int j = 0;
    for (; j + V * lanes <= cols; j += V * lanes)
        multiply_page<C, V, Accumulate>(x, xc, xi, rows.from(j), n, out + j, out_stride);
    for (; j < cols; j += lanes) multiply_page<C, 1, Accumulate>(x, xc, xi, rows.from(j), n, out + j, out_stride);
}

// Codes of the cache as floats; n is a multiple of 16, and f16 and e4m3 are read and written in whole vectors.
QUANT_INLINE void codes_to_float(CacheKind kind, const uint8_t* codes, int64_t n, float* to) {
    if (kind == CacheKind::f16) {
        for (int64_t i = 0; i < n; i += lanes) Simd::store(to + i, Simd::load_f16(codes + 2 * i));
    } else if (kind == CacheKind::s8) {
        for (int64_t i = 0; i < n; i += lanes) Simd::store(to + i, Simd::to_float(Simd::load_s8(codes + i)));
    } else {
        for (int64_t i = 0; i < n; i += lanes) Simd::store(to + i, Simd::load_e4m3(codes + i));
    }
}

// A page is read once and then computed with for a while; meanwhile the next one is fetched into the second-level
// cache. The last page is its own next one, of no lines.
struct NextPage {
    const uint8_t *keys, *values;
    int lines;  // of 64 bytes, of each
    QUANT_INLINE void fetch(int part, int parts) const {
        for (int i = lines * part / parts; i < lines * (part + 1) / parts; ++i) {
            Simd::prefetch_far(keys + 64 * i);
            Simd::prefetch_far(values + 64 * i);
        }
    }
};
QUANT_INLINE NextPage next_page(const AttentionTile& t, int page, int last_page) {
    const int code_bytes = t.kind == CacheKind::f16 ? 2 : 1;
    const int lines = page < last_page ? t.head_dim * page_positions * code_bytes / 64 : 0;
    const uint8_t* memory = t.page(t.context, page < last_page ? page + 1 : page);
    return {memory + t.keys, memory + t.values, lines};
}

// The positions of a page that a query sees; none if begin >= end.
struct Visible {
    int begin, end;
};

// Scores -> weights of `count` queries from `first` on; the sums so far shrink where the largest score rises. Each step
// is done for all queries before the next: its chains of dependent operations overlap.
QUANT_INLINE void soften(const AttentionScratch& s, int first, int count, const Visible* visible, float scale,
                         int head_dim) {
    constexpr int vectors = page_positions / lanes, padded = (query_tile + lanes - 1) / lanes * lanes;
    const Float lowest = Simd::set(-3.0e38f), zero = Simd::set(0);
    float* weights = s.weights + static_cast<int64_t>(first) * page_positions;
    float risen[query_tile], shrink[padded];
    for (int c = 0; c < padded; ++c) shrink[c] = 0;
    for (int c = 0; c < count; ++c) {
        float* score = weights + c * page_positions;
        Float largest = Simd::set(s.largest[first + c]);
        for (int i = 0; i < vectors; ++i) {
            const Float factor = Simd::mul(Simd::load(s.k_scales + i * lanes), Simd::set(scale));
            const Float x = Simd::select_lanes(visible[c].begin - i * lanes, visible[c].end - i * lanes,
                                               Simd::mul(Simd::load(score + i * lanes), factor), lowest);
            Simd::store(score + i * lanes, x);
            largest = Simd::max(x, largest);
        }
        risen[c] = Simd::reduce_max(largest);
        shrink[c] = s.largest[first + c] - risen[c];
    }
    for (int c = 0; c < padded; c += lanes) Simd::store(shrink + c, exp(Simd::load(shrink + c)));
    for (int c = 0; c < count; ++c) {
        float* weight = weights + c * page_positions;
        Float sum = zero;
        for (int i = 0; i < vectors; ++i) {
            Float e = exp(Simd::sub(Simd::load(weight + i * lanes), Simd::set(risen[c])));
            e = Simd::select_lanes(visible[c].begin - i * lanes, visible[c].end - i * lanes, e, zero);
            sum = Simd::add(sum, e);
            Simd::store(weight + i * lanes, Simd::mul(e, Simd::load(s.v_scales + i * lanes)));
        }
        float* total = s.total + first + c;
        if (risen[c] > s.largest[first + c]) {
            s.largest[first + c] = risen[c];
            *total *= shrink[c];
            float* mean = s.mean + static_cast<int64_t>(first + c) * head_dim;
            for (int i = 0; i < head_dim; i += lanes)
                Simd::store(mean + i, Simd::mul(Simd::load(mean + i), Simd::set(shrink[c])));
        }
        *total += Simd::reduce_add(sum);
    }
}

void attention(const AttentionTile& t, uint8_t* scratch) {
    const int queries = t.rows * t.heads, dim = t.head_dim;
    const AttentionScratch s = attention_scratch(scratch, queries, dim);
    const RowTiles tiles = row_tiles(queries, queries <= query_tile ? query_tile : many_query_tile);
    auto query_at = [&](const float* base, int64_t stride, int query) {
        return base + query / t.heads * stride + query % t.heads * dim;
    };
    for (int i = 0; i < tiles.tiles; ++i) {
        const int first = tile_first(tiles, i), count = tile_count(tiles, i);
        float* to = s.q + static_cast<int64_t>(first) * dim;
        for (int c = 0; c < count; ++c) {
            const float* from = query_at(t.q, t.q_stride, first + c);
            for (int k = 0; k < dim; ++k) to[k * count + c] = from[k];
        }
    }
    for (int query = 0; query < queries; ++query) {
        s.largest[query] = -3.0e38f;
        s.total[query] = 0;
    }
    for (int i = 0; i < page_positions; ++i) s.k_scales[i] = s.v_scales[i] = 1;
    std::memset(s.mean, 0, sizeof(float) * static_cast<size_t>(queries) * dim);

    const int last_position = t.first_position + t.rows - 1;
    const int first_position = t.window && t.first_position >= t.window ? t.first_position - t.window + 1 : 0;
    const int last_page = last_position / page_positions;
    const bool convert_once = t.kind != CacheKind::f16 || tiles.tiles > 1;
    for (int page = first_position / page_positions; page <= last_page; ++page) {
        const NextPage next = next_page(t, page, last_page);
        const uint8_t *memory = t.page(t.context, page), *keys = memory + t.keys, *values = memory + t.values;
        // Positions that nothing was written to may hold anything, NaN too.
        const int left = last_position + 1 - page * page_positions;
        const int valid = left < page_positions ? left : page_positions;
        if (convert_once) {
            codes_to_float(t.kind, keys, static_cast<int64_t>(dim) * page_positions, s.k);
            codes_to_float(t.kind, values, static_cast<int64_t>(valid) * dim, s.v);
        }
        if (t.kind != CacheKind::f16) {
            codes_to_float(CacheKind::f16, memory + t.key_scales, page_positions, s.k_scales);
            codes_to_float(CacheKind::f16, memory + t.value_scales, page_positions, s.v_scales);
        }

        for (int i = 0; i < tiles.tiles; ++i) {
            const int first = tile_first(tiles, i), count = tile_count(tiles, i);
            Visible visible[query_tile];
            for (int c = 0; c < count; ++c) {
                const int end = t.first_position + (first + c) / t.heads + 1 - page * page_positions;
                const int begin = t.window ? end - t.window : 0;
                visible[c] = {begin > 0 ? begin : 0, end < page_positions ? end : page_positions};
            }
            if (visible[count - 1].end <= 0 || visible[0].begin >= page_positions) continue;
            const float* q = s.q + static_cast<int64_t>(first) * dim;
            float* weights = s.weights + static_cast<int64_t>(first) * page_positions;
            float* mean = s.mean + static_cast<int64_t>(first) * dim;
            with_count<query_tile>(count, [&](auto c) QUANT_INLINE_LAMBDA {
                constexpr int C = decltype(c)::value;
                if (convert_once)
                    multiply_page_columns<C, false>(q, 1, C, FloatRows{s.k, page_positions}, dim, page_positions,
                                                    weights, page_positions);
                else
                    multiply_page_columns<C, false>(q, 1, C, half_rows(keys, next.keys, page_positions), dim,
                                                    page_positions, weights, page_positions);
            });
            if (convert_once) next.fetch(i, tiles.tiles);
            soften(s, first, count, visible, t.scale, dim);
            with_count<query_tile>(count, [&](auto c) QUANT_INLINE_LAMBDA {
                constexpr int C = decltype(c)::value;
                if (convert_once)
                    multiply_page_columns<C, true>(weights, page_positions, 1, FloatRows{s.v, dim}, valid, dim, mean,
                                                   dim);
                else
                    multiply_page_columns<C, true>(weights, page_positions, 1, half_rows(values, next.values, dim),
                                                   valid, dim, mean, dim);
            });
        }
    }
    for (int query = 0; query < queries; ++query) {
        float* to = t.out + query / t.heads * t.out_stride + query % t.heads * dim;
        const float* mean = s.mean + static_cast<int64_t>(query) * dim;
        const Float total = Simd::set(s.total[query]);
        for (int i = 0; i < dim; i += lanes) Simd::store(to + i, Simd::div(Simd::load(mean + i), total));
    }
}
