// Rope, the cache and attention: the kernels of every device that runs here against the reference.
#include <cstring>
#include <limits>

#include "formats/float_types.h"
#include "tests/kernel_checks.h"

using namespace quant;

namespace {

// A step of several sequences and the cache that they use, its unwritten positions NaN.
struct CacheRig {
    CacheShape shape;
    Step step;
    std::vector<uint8_t> content;  // of all pages
    static constexpr int pages_per_chunk = 3;

    struct Part {
        int first_position, rows;
    };
    CacheRig(const CacheShape& shape, const std::vector<Part>& parts, bool filled, Random& random) : shape(shape) {
        std::vector<int32_t> free_pages;
        for (const Part& part : parts) {
            StepSequence s;
            s.first_row = step.rows();
            s.rows = part.rows;
            s.first_position = part.first_position;
            s.first_page = static_cast<int>(step.pages.size());
            for (int i = 0; i < part.rows; ++i) {
                step.tokens.push_back(0);
                step.positions.push_back(part.first_position + i);
            }
            const int used = (part.first_position + part.rows + page_positions - 1) / page_positions;
            for (int i = 0; i < used; ++i) step.pages.push_back(0);
            step.sequences.push_back(s);
        }
        const int pages = static_cast<int>(step.pages.size()) + 2;
        for (int i = 0; i < pages; ++i) free_pages.push_back(i);
        for (int32_t& page : step.pages) {  // scattered over the pool
            const int at = random.below(static_cast<int>(free_pages.size()));
            page = free_pages[at];
            free_pages.erase(free_pages.begin() + at);
        }
        const int padded = (pages + pages_per_chunk - 1) / pages_per_chunk * pages_per_chunk;
        content.assign(padded * shape.page_bytes(), 0xff);
        if (!filled) return;
        for (const StepSequence& s : step.sequences)
            for (int p = 0; p < s.first_position + s.rows; ++p)
                for (int layer = 0; layer < shape.layers; ++layer)
                    for (int head = 0; head < shape.kv_heads; ++head) fill(s, p, layer, head, random);
    }

    size_t layer_at(const StepSequence& s, int position, int layer) const {
        return step.pages[s.first_page + position / page_positions] * shape.page_bytes() + layer * shape.layer_bytes();
    }
    size_t key_at(const StepSequence& s, int position, int layer, int head, int i) const {
        return layer_at(s, position, layer) + shape.keys(head) +
               (i * page_positions + position % page_positions) * shape.code_bytes();
    }
    size_t value_at(const StepSequence& s, int position, int layer, int head, int i) const {
        return layer_at(s, position, layer) + shape.values(head) +
               (position % page_positions * shape.head_dim + i) * shape.code_bytes();
    }
    size_t scale_at(const StepSequence& s, int position, int layer, int head, bool of_value) const {
        return layer_at(s, position, layer) + (of_value ? shape.value_scales(head) : shape.key_scales(head)) +
               position % page_positions * 2;
    }
    float key(const StepSequence& s, int position, int layer, int head, int i) const {
        return number(key_at(s, position, layer, head, i), scale_at(s, position, layer, head, false));
    }
    float value(const StepSequence& s, int position, int layer, int head, int i) const {
        return number(value_at(s, position, layer, head, i), scale_at(s, position, layer, head, true));
    }
    // A code times its scale: exact in float for the scales that `fill` makes.
    float number(size_t code_at, size_t scale) const {
        if (shape.kind == CacheKind::f16) return half(code_at);
        const uint8_t code = content[code_at];
        return (shape.kind == CacheKind::s8 ? static_cast<float>(static_cast<int8_t>(code)) : e4m3_to_f32(code)) *
               half(scale);
    }
    float half(size_t at) const {
        uint16_t h;
        std::memcpy(&h, &content[at], 2);
        return f16_to_f32(h);
    }
    void put_half(size_t at, float x) {
        const uint16_t h = f32_to_f16(x);
        std::memcpy(&content[at], &h, 2);
    }
    // One position of one head: any codes but e4m3's NaN, values up to 2 or so.
    void fill(const StepSequence& s, int position, int layer, int head, Random& random) {
        for (int i = 0; i < shape.head_dim; ++i)
            for (size_t at : {key_at(s, position, layer, head, i), value_at(s, position, layer, head, i)}) {
                if (shape.kind == CacheKind::f16)
                    put_half(at, random.uniform(-2, 2));
                else
                    content[at] = static_cast<uint8_t>(random.byte());
                if (shape.kind == CacheKind::e4m3 && (content[at] & 0x7f) == 0x7f) content[at] ^= 1;
            }
        if (shape.kind == CacheKind::f16) return;
        const float most = shape.kind == CacheKind::s8 ? 2.0f / 127 : 2.0f / 448;
        for (bool of_value : {false, true})
            put_half(scale_at(s, position, layer, head, of_value), random.uniform(most / 4, most));
    }

    CacheStorage upload(Run& run) const {
        CacheStorage cache;
        cache.shape = shape;
        cache.pages_per_chunk = pages_per_chunk;
        const size_t bytes = pages_per_chunk * shape.page_bytes();
        for (size_t at = 0; at < content.size(); at += bytes) {
            cache.chunks.push_back(run.buffer(bytes));
            run.backend().write(cache.chunks.back(), 0, content.data() + at, bytes);
        }
        return cache;
    }
    std::vector<uint8_t> download(Run& run, const CacheStorage& cache) const {
        std::vector<uint8_t> result(content.size());
        const size_t bytes = pages_per_chunk * shape.page_bytes();
        for (size_t i = 0; i < cache.chunks.size(); ++i)
            run.backend().read(cache.chunks[i], 0, result.data() + i * bytes, bytes);
        return result;
    }
};

struct WithCache {
    Matrix y;
    std::vector<uint8_t> cache;
};
bool same_bits(const WithCache& a, const WithCache& b) {
    return same_bits(a.y, b.y) && a.cache == b.cache;
}

WithCache compute_cached(Device& device, const Kernel& kernel, const Node& node, const CacheRig& rig,
                         const std::vector<const Matrix*>& in, int64_t out_cols) {
    Run run(device);
    const CacheStorage cache = rig.upload(run);
    Step step = rig.step;
    step.cache = &cache;
    std::vector<Operand> operands;
    for (const Matrix* m : in) operands.push_back(run.put(*m));
    Operand out;
    if (out_cols) out = run.put(Matrix(step.rows(), out_cols, 3));
    run.node(kernel, node, nullptr, operands, out, step, step.rows());
    WithCache result;
    if (out_cols) result.y = run.get_matrix(out, step.rows());
    result.cache = rig.download(run, cache);
    return result;
}

struct Heads {
    int heads, kv_heads, head_dim;
};
const Heads head_shapes[] = {{4, 2, 64}, {1, 1, 128}, {5, 1, 80}, {2, 2, 20},
                             {3, 3, 16}, {2, 1, 96},  {7, 1, 64}, {6, 2, 128}};
const std::vector<std::vector<CacheRig::Part>> step_parts = {{{0, 1}},
                                                             {{63, 1}},
                                                             {{64, 1}},
                                                             {{200, 1}},
                                                             {{0, 5}},
                                                             {{0, 100}},
                                                             {{61, 7}},
                                                             {{90, 50}},
                                                             {{5, 1}, {70, 1}, {0, 1}, {129, 1}},
                                                             {{0, 40}, {90, 1}, {30, 3}},
                                                             {{3, 70}, {200, 2}, {0, 20}, {70, 66}}};

Matrix random_angles(int rows, int head_dim, Random& random) {
    Matrix m(rows, head_dim);
    for (int r = 0; r < rows; ++r)
        for (int i = 0; i < head_dim / 2; ++i) {
            const float angle = random.uniform(-3, 3);
            m.row(r)[2 * i] = std::cos(angle);
            m.row(r)[2 * i + 1] = std::sin(angle);
        }
    return m;
}

const CacheKind cache_kinds[] = {CacheKind::f16, CacheKind::s8, CacheKind::e4m3};

Node head_node(const Heads& h, CacheKind cache) {
    Node node;
    node.cache = cache;
    node.heads = h.heads;
    node.kv_heads = h.kv_heads;
    node.head_dim = h.head_dim;
    node.layer = 1;
    return node;
}

}  // namespace

namespace {

// Keys and values that are hard to round: all zeros, NaN, infinity, numbers of every size, ties.
void make_hard(Matrix& m, Random& random) {
    const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    for (int r = 0; r < m.rows; ++r)
        for (int64_t c = 0; c < m.cols; ++c) {
            float& x = m.row(r)[c];
            if (r % 8 == 1) x = 0;
            if (r % 8 == 2) x *= 1e-41f;
            if (r % 8 == 3) x *= 1e-6f;  // its scale is subnormal as f16
            if (r % 8 == 4) x *= 1e30f;
            if (r % 8 == 5) x = c % 5 == 0 ? nan : c % 7 == 0 ? infinity : x;
            if (r % 8 == 6) x = c % 16 == 0 ? 127.f : static_cast<float>(random.below(253) - 126) + 0.5f;
            if (r % 8 == 7) x = c % 16 == 0 ? -448.f : static_cast<float>(random.below(896) - 448);
        }
}

// Rows of K that differ by the rounding of rope may be encoded one step apart, their scales one unit apart; V and all
// other bytes are the same.
void check_written(const CacheRig& got, const CacheRig& expected, int layer) {
    std::vector<bool> may_differ(got.content.size(), false);
    double worst = 0;
    for (const StepSequence& s : expected.step.sequences)
        for (int p = s.first_position; p < s.first_position + s.rows; ++p)
            for (int head = 0; head < expected.shape.kv_heads; ++head) {
                const size_t scale_at = expected.scale_at(s, p, layer, head, false);
                const bool scaled = expected.shape.kind != CacheKind::f16;
                const double scale = scaled ? expected.half(scale_at) : 0;
                if (scaled) may_differ[scale_at] = may_differ[scale_at + 1] = true;
                for (int i = 0; i < expected.shape.head_dim; ++i) {
                    const size_t at = expected.key_at(s, p, layer, head, i);
                    for (size_t byte = 0; byte < expected.shape.code_bytes(); ++byte) may_differ[at + byte] = true;
                    const double a = got.key(s, p, layer, head, i), b = expected.key(s, p, layer, head, i);
                    worst = std::max(worst, std::fabs(a - b) - tolerance::cache_step(expected.shape.kind, b, scale));
                }
            }
    CHECK(worst <= 0);
    size_t wrong = 0;
    for (size_t i = 0; i < may_differ.size(); ++i) wrong += !may_differ[i] && got.content[i] != expected.content[i];
    CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("cache_write kernels give the reference's bits", "[kernels]") {
    Device reference("cpu:reference", 2);
    auto devices = tested_devices();
    Random random(17);
    for (CacheKind cache : cache_kinds)
        for (const Heads& h : head_shapes)
            for (const auto& parts : {step_parts[0], step_parts[6], step_parts[7], step_parts[9]}) {
                const CacheRig rig({2, h.kv_heads, h.head_dim, cache}, parts, false, random);
                const int rows = rig.step.rows();
                const int64_t cols = h.kv_heads * h.head_dim;
                Matrix k = random_matrix(rows, cols, 2, random), v = random_matrix(rows, cols, 0, random);
                make_hard(k, random);
                make_hard(v, random);
                const Node node = head_node(h, cache);
                auto write = [&](Device& d, const Kernel& kernel) {
                    return compute_cached(d, kernel, node, rig, {&k, &v}, 0);
                };
                const WithCache written = write(reference, reference.reference(Op::cache_write));
                each_kernel(devices, Op::cache_write, node, nullptr, value(ValueType::f32, cols), Value{}, write,
                            [&](const WithCache& y) { CHECK(y.cache == written.cache); });
            }
    fail_if_unexercised(devices, {Op::cache_write});
}

TEST_CASE("the cache's codes are these", "[reference]") {
    Device reference("cpu:reference", 1);
    Random random(18);
    const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    auto write = [&](CacheKind kind, const std::vector<float>& x) {
        CacheRig rig({2, 1, 4, kind}, {{70, 1}}, false, random);
        Matrix k(1, 4), v(1, 4);
        k.values = v.values = x;
        rig.content = compute_cached(reference, reference.reference(Op::cache_write), head_node({1, 1, 4}, kind), rig,
                                     {&k, &v}, 0)
                          .cache;
        return rig;
    };
    auto check = [&](CacheKind kind, const std::vector<float>& x, const std::vector<int>& codes, float scale) {
        const CacheRig rig = write(kind, x);
        const StepSequence& s = rig.step.sequences[0];
        for (int i = 0; i < 4; ++i) {
            INFO(cache_kind_name(kind) << " of " << x[i]);
            CHECK(rig.content[rig.key_at(s, 70, 1, 0, i)] == static_cast<uint8_t>(codes[i]));
            CHECK(rig.content[rig.value_at(s, 70, 1, 0, i)] == static_cast<uint8_t>(codes[i]));
        }
        CHECK(rig.half(rig.scale_at(s, 70, 1, 0, false)) == scale);
        CHECK(rig.half(rig.scale_at(s, 70, 1, 0, true)) == scale);
    };
    check(CacheKind::s8, {127, -0.5f, 1.5f, -126.5f}, {127, 0, 2, -126}, 1);
    check(CacheKind::s8, {0, -0.f, 0, 0}, {0, 0, 0, 0}, 0);
    check(CacheKind::s8, {-254, nan, 1, 3}, {-127, 0, 0, 2}, 2);
    check(CacheKind::s8, {infinity, 0, -infinity, 65504}, {127, 0, -127, 1}, 65504);
    check(CacheKind::s8, {1e-9f, 0, 0, 0}, {0, 0, 0, 0}, 0);  // below what an f16 scale can say
    check(CacheKind::e4m3, {448, -224, 1, 0}, {0x7e, 0xf6, 0x38, 0}, 1);
    check(CacheKind::e4m3, {896, nan, 0, -0.f}, {0x7e, 0x7f, 0, 0x80}, 2);
    check(CacheKind::e4m3, {0, 0, 0, 0}, {0, 0, 0, 0}, 0);
    const CacheRig half = write(CacheKind::f16, {1, -2, 0.1f, 0});
    CHECK(half.key(half.step.sequences[0], 70, 1, 0, 1) == -2);
    CHECK(half.value(half.step.sequences[0], 70, 1, 0, 2) == f16_to_f32(f32_to_f16(0.1f)));
}

TEST_CASE("rope kernels, alone and with the cache's write", "[kernels]") {
    Device reference("cpu:reference", 2);
    auto devices = tested_devices();
    Random random(14);
    for (const Heads& h : head_shapes)
        for (bool adjacent : {false, true})
            for (const auto& parts : {step_parts[0], step_parts[6], step_parts[9]})
                for (CacheKind cache : cache_kinds) {
                    const CacheRig rig({2, h.kv_heads, h.head_dim, cache}, parts, false, random);
                    const int rows = rig.step.rows();
                    const int64_t q_cols = h.heads * h.head_dim, kv_cols = h.kv_heads * h.head_dim;
                    const Matrix q = random_matrix(rows, q_cols, 7, random),
                                 k = random_matrix(rows, kv_cols, 2, random),
                                 v = random_matrix(rows, kv_cols, 0, random),
                                 angles = random_angles(rows, h.head_dim, random);
                    Node node = head_node(h, cache);
                    node.adjacent_pairs = adjacent;
                    Node k_node = node;
                    k_node.heads = h.kv_heads;
                    const Value f32 = value(ValueType::f32, q_cols);
                    // x and its partner's absolute products: at most their sum.
                    auto rope_bound = [&](const Matrix& x) {
                        return [&x, dim = h.head_dim, adjacent](int r, int64_t c, double) {
                            const int64_t i = c % dim, other = adjacent      ? c ^ 1
                                                               : i < dim / 2 ? c + dim / 2
                                                                             : c - dim / 2;
                            return tolerance::rope(std::fabs(x.row(r)[c]) + std::fabs(x.row(r)[other]));
                        };
                    };

                    auto rope = [&](Device& d, const Kernel& kernel) {
                        return compute(d, kernel, node, nullptr, {&q, &angles}, q_cols, rig.step);
                    };
                    const Matrix expected = rope(reference, reference.reference(Op::rope));
                    each_kernel(devices, Op::rope, node, nullptr, f32, f32, rope,
                                [&](const Matrix& y) { CHECK(worst_error(y, expected, rope_bound(q)) <= 1); });

                    const Matrix turned_k = compute(reference, reference.reference(Op::rope), k_node, nullptr,
                                                    {&k, &angles}, kv_cols, rig.step);
                    CacheRig turned = rig;
                    turned.content =
                        compute_cached(reference, reference.reference(Op::cache_write), node, rig, {&turned_k, &v}, 0)
                            .cache;
                    each_kernel(
                        devices, Op::rope_cache_write, node, nullptr, f32, f32,
                        [&](Device& d, const Kernel& kernel) {
                            return compute_cached(d, kernel, node, rig, {&q, &k, &v, &angles}, q_cols);
                        },
                        [&](const WithCache& y) {
                            CHECK(worst_error(y.y, expected, rope_bound(q)) <= 1);
                            CacheRig got = rig;
                            got.content = y.cache;
                            check_written(got, turned, node.layer);
                        });
                }
    fail_if_unexercised(devices, {Op::rope, Op::rope_cache_write});
}

TEST_CASE("rope_angles kernels", "[kernels]") {
    Device reference("cpu:reference", 2);
    auto devices = tested_devices();
    Random random(15);
    for (int head_dim : {2, 20, 64, 128}) {
        const HostWeight frequencies = random_vector(head_dim / 2, 0, 1, random);
        Step step = plain_step(6);
        step.positions = {0, 1, 63, 1000, 8191, 131071};
        auto go = [&](Device& d, const Kernel& k) { return compute(d, k, {}, &frequencies, {}, head_dim, step); };
        const Matrix expected = go(reference, reference.reference(Op::rope_angles));
        Weight described;
        described.rows = head_dim / 2;
        described.cols = 1;
        const Value out = value(ValueType::f32, head_dim);
        each_kernel(devices, Op::rope_angles, {}, &described, out, out, go, [&](const Matrix& y) {
            CHECK(worst_error(y, expected, [](int, int64_t, double) { return tolerance::rope_angle(); }) <= 1);
        });
        for (int r = 0; r < 6; ++r)  // the reference itself: the angle is a float product
            for (int i = 0; i < head_dim / 2; ++i) {
                float frequency;
                std::memcpy(&frequency, &frequencies.codes[i * 4], 4);
                const double angle = static_cast<float>(step.positions[r]) * frequency;
                CHECK(std::fabs(expected.row(r)[2 * i] - std::cos(angle)) <= tolerance::rope_angle());
                CHECK(std::fabs(expected.row(r)[2 * i + 1] - std::sin(angle)) <= tolerance::rope_angle());
            }
    }
    fail_if_unexercised(devices, {Op::rope_angles});
}

// Attention in float64 over what the cache holds, and how far kernels may be from it: with float32 queries and
// probabilities, and with those rounded to f16.
struct Textbook {
    Matrix expected, bound, rounded_bound;
};
Textbook textbook_attention(const CacheRig& rig, const Heads& h, const Node& node, const Matrix& q) {
    const int rows = rig.step.rows(), group = h.heads / h.kv_heads;
    const size_t head_dim = h.head_dim;
    const int64_t cols = h.heads * h.head_dim;
    Textbook book{{rows, cols}, {rows, cols}, {rows, cols}};
    std::vector<float> keys, values;
    std::vector<double> scores, sums(head_dim);
    for (const StepSequence& s : rig.step.sequences)
        for (int kv_head = 0; kv_head < h.kv_heads; ++kv_head) {
            keys.clear(), values.clear();
            for (int p = 0; p < s.first_position + s.rows; ++p)
                for (int d = 0; d < h.head_dim; ++d) {
                    keys.push_back(rig.key(s, p, 1, kv_head, d));
                    values.push_back(rig.value(s, p, 1, kv_head, d));
                }
            for (int i = 0; i < s.rows; ++i)
                for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
                    const int row = s.first_row + i, end = s.first_position + i + 1;
                    const int begin = node.window ? std::max(0, end - node.window) : 0;
                    const float* query = q.row(row) + head * head_dim;
                    double largest = -HUGE_VAL, total = 0, magnitude = 0, largest_v = 0;
                    scores.clear();
                    for (int p = begin; p < end; ++p) {
                        double score = 0, absolute = 0;
                        for (size_t d = 0; d < head_dim; ++d) {
                            const double product = static_cast<double>(query[d]) * keys[p * head_dim + d];
                            score += product;
                            absolute += std::fabs(product);
                        }
                        scores.push_back(score * node.scale);
                        largest = std::max(largest, scores.back());
                        magnitude = std::max(magnitude, absolute * node.scale);
                    }
                    for (double& score : scores) total += score = std::exp(score - largest);
                    std::fill(sums.begin(), sums.end(), 0);
                    for (int p = begin; p < end; ++p)
                        for (size_t d = 0; d < head_dim; ++d) {
                            const double v = values[p * head_dim + d];
                            sums[d] += scores[p - begin] * v;
                            largest_v = std::max(largest_v, std::fabs(v));
                        }
                    const double exact = tolerance::attention(end - begin, h.head_dim, magnitude, largest_v);
                    const double rounded = tolerance::attention_f16(end - begin, magnitude, largest_v);
                    for (size_t d = 0; d < head_dim; ++d) {
                        const size_t at = head * head_dim + d;
                        book.expected.row(row)[at] = static_cast<float>(sums[d] / total);
                        book.bound.row(row)[at] = static_cast<float>(exact);
                        book.rounded_bound.row(row)[at] = static_cast<float>(exact + rounded);
                    }
                }
        }
    return book;
}

TEST_CASE("attention kernels and the reference against the textbook", "[kernels][attention]") {
    Device reference("cpu:reference", 2);
    auto devices = tested_devices();
    Random random(16);
    for (CacheKind cache : cache_kinds)
        for (const Heads& h : head_shapes)
            for (int window : {0, 1, 50, 64})
                for (const auto& parts : step_parts) {
                    CacheRig rig({2, h.kv_heads, h.head_dim, cache}, parts, true, random);
                    const int rows = rig.step.rows();
                    if (rows > 64 && (window == 1 || window == 64)) continue;  // long under emulation
                    const int64_t cols = h.heads * h.head_dim;
                    const Matrix q = random_matrix(rows, cols, 5, random);
                    Node node = head_node(h, cache);
                    node.window = window;
                    node.scale = 1 / std::sqrt(static_cast<float>(h.head_dim));

                    const Textbook book = textbook_attention(rig, h, node, q);

                    bool rounds = false;
                    auto go = [&](Device& d, const Kernel& k) {
                        rounds = k.rounds_to != nullptr;
                        return compute_cached(d, k, node, rig, {&q}, cols);
                    };
                    INFO(cache_kind_name(cache) << ", " << h.heads << " heads of " << h.head_dim << ", window "
                                                << window << ", " << rows << " rows");
                    const WithCache y = go(reference, reference.reference(Op::attention));
                    REQUIRE(worst_error(y.y, book.expected,
                                        [](int, int64_t, double e) { return 1e-6 * std::fabs(e) + 1e-7; }) <= 1);
                    const Value f32 = value(ValueType::f32, cols);
                    each_kernel(devices, Op::attention, node, nullptr, f32, f32, go, [&](const WithCache& fast) {
                        const Matrix& allowed = rounds ? book.rounded_bound : book.bound;
                        CHECK(worst_error(fast.y, book.expected,
                                          [&](int r, int64_t c, double) { return allowed.row(r)[c]; }) <= 1);
                        CHECK(fast.cache == rig.content);
                    });
                }
    fail_if_unexercised(devices, {Op::attention});
}

TEST_CASE("what is infinite in one sequence's values stays in its rows", "[kernels][attention]") {
    auto devices = tested_devices();
    Random random(19);
    const float infinity = std::numeric_limits<float>::infinity();
    const std::vector<CacheRig::Part> parts = {{0, 12}, {70, 9}, {3, 30}, {0, 2}, {0, 20}};
    for (CacheKind cache : cache_kinds)
        for (const Heads& h : {Heads{4, 2, 64}, Heads{2, 1, 128}})
            for (size_t poisoned = 0; poisoned < parts.size(); ++poisoned) {
                const CacheRig rig({2, h.kv_heads, h.head_dim, cache}, parts, true, random);
                CacheRig infinite = rig;
                const StepSequence& s = rig.step.sequences[poisoned];
                for (int p = 0; p < s.first_position + s.rows; ++p)
                    for (int head = 0; head < h.kv_heads; ++head) {
                        if (cache != CacheKind::f16) infinite.put_half(rig.scale_at(s, p, 1, head, true), infinity);
                        for (int i = 0; cache == CacheKind::f16 && i < h.head_dim; ++i)
                            infinite.put_half(rig.value_at(s, p, 1, head, i), infinity);
                    }
                const int64_t cols = h.heads * h.head_dim;
                const Matrix q = random_matrix(rig.step.rows(), cols, 0, random);
                Node node = head_node(h, cache);
                node.scale = 0.1f;
                INFO(cache_kind_name(cache) << ", head dimension " << h.head_dim << ", sequence " << poisoned);
                WithCache expected;
                each_kernel(
                    devices, Op::attention, node, nullptr, value(ValueType::f32, cols), value(ValueType::f32, cols),
                    [&](Device& d, const Kernel& k) {
                        expected = compute_cached(d, k, node, rig, {&q}, cols);
                        return compute_cached(d, k, node, infinite, {&q}, cols);
                    },
                    [&](const WithCache& y) {
                        int changed = 0, finite = 0;
                        for (int r = 0; r < y.y.rows; ++r) {
                            const bool other = r < s.first_row || r >= s.first_row + s.rows;
                            if (other)
                                changed += !same_bits(y.y.row(r), expected.y.row(r), cols);
                            else
                                for (int64_t c = 0; c < cols; ++c) finite += std::isfinite(y.y.row(r)[c]);
                        }
                        CHECK(changed == 0);
                        CHECK(finite == 0);
                    });
            }
    fail_if_unexercised(devices, {Op::attention});
}
