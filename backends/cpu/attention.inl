// Attention of a tile of queries (rows of one sequence x the query heads of one KV head) over the pages of the cache,
// with the softmax built up page by page. Included inside an unnamed namespace after rowwise.inl.
//
// Each page's codes are converted to float once for all queries; the scales of its positions multiply scores and
// weights. A query's own operations and their order do not depend on what else is in the tile, and a page that is
// masked for it changes nothing.

constexpr int query_tile = row_tile < 6 ? row_tile : 6;
constexpr int vectors_together = Simd::float_sums / query_tile < 4 ? Simd::float_sums / query_tile : 4;

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

// out[c][j] (+)= sum over i < n of x(c, i) * rows[i][j], for V vectors from column j on; x(c, i) = x[c * xc + i * xi].
template <int C, int V, bool Accumulate>
QUANT_INLINE void multiply_page(const float* x, int64_t xc, int64_t xi, const float* rows, int64_t stride, int n,
                                float* out, int64_t out_stride) {
    Float sum[C][V];
    QUANT_UNROLL
    for (int c = 0; c < C; ++c) {
        QUANT_UNROLL
        for (int j = 0; j < V; ++j)
            sum[c][j] = Accumulate ? Simd::load(out + c * out_stride + j * lanes) : Simd::set(0);
    }
    for (int i = 0; i < n; ++i, rows += stride, x += xi) {
        Float row[V];
        QUANT_UNROLL
        for (int j = 0; j < V; ++j) row[j] = Simd::load(rows + j * lanes);
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
template <int C, bool Accumulate>
QUANT_NOINLINE void multiply_page_columns(const float* x, int64_t xc, int64_t xi, const float* rows, int n, int cols,
                                          float* out, int64_t out_stride) {
    int j = 0;
    for (; j + vectors_together * lanes <= cols; j += vectors_together * lanes)
        multiply_page<C, vectors_together, Accumulate>(x, xc, xi, rows + j, cols, n, out + j, out_stride);
    for (; j < cols; j += lanes) multiply_page<C, 1, Accumulate>(x, xc, xi, rows + j, cols, n, out + j, out_stride);
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
// cache.
struct NextPage {
    const uint8_t *keys, *values;
    int lines;  // of 64 bytes, of each; 0: there is no next page
    QUANT_INLINE void fetch(int part, int parts) const {
        for (int i = lines * part / parts; i < lines * (part + 1) / parts; ++i) {
            Simd::prefetch_far(keys + 64 * i);
            Simd::prefetch_far(values + 64 * i);
        }
    }
};
QUANT_INLINE NextPage next_page(const AttentionTile& t, int page, int last_page) {
    if (page >= last_page) return {nullptr, nullptr, 0};
    const uint8_t* memory = t.page(t.context, page + 1);
    const int code_bytes = t.kind == CacheKind::f16 ? 2 : 1;
    return {memory + t.keys, memory + t.values, t.head_dim * page_positions * code_bytes / 64};
}

// Scores -> weights for positions [first, end) of the page; the sums so far shrink if the largest score rises.
QUANT_INLINE void soften(const AttentionScratch& s, int query, int first, int end, float scale, int head_dim) {
    constexpr int vectors = page_positions / lanes;
    float* weights = s.weights + static_cast<int64_t>(query) * page_positions;
    float* mean = s.mean + static_cast<int64_t>(query) * head_dim;
    const Float lowest = Simd::set(-3.0e38f), zero = Simd::set(0);
    Float score[vectors], largest = lowest;
    for (int i = 0; i < vectors; ++i) {
        score[i] =
            Simd::mul(Simd::load(weights + i * lanes), Simd::mul(Simd::load(s.k_scales + i * lanes), Simd::set(scale)));
        score[i] = Simd::select_lanes(first - i * lanes, end - i * lanes, score[i], lowest);
        largest = Simd::max(score[i], largest);
    }
    const float before = s.largest[query], risen = Simd::reduce_max(Simd::max(Simd::set(before), largest));
    Float sum = zero;
    for (int i = 0; i < vectors; ++i) {
        Float e = exp(Simd::sub(score[i], Simd::set(risen)));
        e = Simd::select_lanes(first - i * lanes, end - i * lanes, e, zero);
        sum = Simd::add(sum, e);
        Simd::store(weights + i * lanes, Simd::mul(e, Simd::load(s.v_scales + i * lanes)));
    }
    if (risen > before) {
        float shrink[lanes];
        Simd::store(shrink, exp(Simd::set(before - risen)));
        s.total[query] *= shrink[0];
        s.largest[query] = risen;
        for (int i = 0; i < head_dim; i += lanes)
            Simd::store(mean + i, Simd::mul(Simd::load(mean + i), Simd::set(shrink[0])));
    }
    s.total[query] += Simd::reduce_add(sum);
}

void attention(const AttentionTile& t, uint8_t* scratch) {
    const int queries = t.rows * t.heads, dim = t.head_dim;
    const AttentionScratch s = attention_scratch(scratch, queries, dim);
    const RowTiles tiles = row_tiles(queries, query_tile);
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
    for (int page = first_position / page_positions; page <= last_page; ++page) {
        const NextPage next = next_page(t, page, last_page);
        const uint8_t* memory = t.page(t.context, page);
        codes_to_float(t.kind, memory + t.keys, static_cast<int64_t>(dim) * page_positions, s.k);
        // Positions that nothing was written to may hold anything, NaN too.
        const int left = last_position + 1 - page * page_positions;
        const int valid = left < page_positions ? left : page_positions;
        codes_to_float(t.kind, memory + t.values, static_cast<int64_t>(valid) * dim, s.v);
        if (t.kind != CacheKind::f16) {
            codes_to_float(CacheKind::f16, memory + t.key_scales, page_positions, s.k_scales);
            codes_to_float(CacheKind::f16, memory + t.value_scales, page_positions, s.v_scales);
        }

        for (int i = 0; i < tiles.tiles; ++i) {
            const int first = tile_first(tiles, i), count = tile_count(tiles, i);
            // Positions of the page that the tile's first and last query see.
            auto end_of = [&](int query) { return t.first_position + query / t.heads + 1 - page * page_positions; };
            auto begin_of = [&](int query) { return t.window ? end_of(query) - t.window : 0; };
            if (end_of(first + count - 1) <= 0 || begin_of(first) >= page_positions) continue;
            float* weights = s.weights + static_cast<int64_t>(first) * page_positions;
            with_count<query_tile>(count, [&](auto c) QUANT_INLINE_LAMBDA {
                multiply_page_columns<decltype(c)::value, false>(s.q + static_cast<int64_t>(first) * dim, 1, c, s.k,
                                                                 dim, page_positions, weights, page_positions);
            });
            for (int query = first; query < first + count; ++query) {
                next.fetch(query, queries);
                const int begin = begin_of(query) > 0 ? begin_of(query) : 0;
                const int end = end_of(query) < page_positions ? end_of(query) : page_positions;
                if (begin < end)
                    soften(s, query, begin, end, t.scale, dim);
                else
                    std::memset(s.weights + static_cast<int64_t>(query) * page_positions, 0,
                                sizeof(float) * page_positions);
            }
            with_count<query_tile>(count, [&](auto c) QUANT_INLINE_LAMBDA {
                multiply_page_columns<decltype(c)::value, true>(weights, page_positions, 1, s.v, valid, dim,
                                                                s.mean + static_cast<int64_t>(first) * dim, dim);
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
