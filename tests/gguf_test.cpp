// GGUF: what is read, what is refused and how, and what our writer makes.
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <set>
#include <sstream>

#include "checkpoints/checkpoint.h"
#include "checkpoints/gguf_types.h"
#include "checkpoints/gguf_writer.h"
#include "formats/decode.h"
#include "formats/encode.h"
#include "tests/checkpoint_fixture.h"

using namespace quant;

namespace {

std::unique_ptr<Checkpoint> read(const std::string& bytes, bool mapped = true) {
    if (mapped) return read_gguf(open_memory(bytes.data(), bytes.size()));
    return read_gguf(std::make_unique<UnmappedFile>(bytes));
}

// The error's status; its text in *what. QUANT_OK if there was none.
quant_status failure(const std::string& bytes, std::string* what = nullptr) {
    try {
        read(bytes);
        return QUANT_OK;
    } catch (const Error& e) {
        if (what) *what = e.what();
        return e.status();
    }
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

Format format(const std::string& name) {
    Format f;
    INFO(name);
    REQUIRE(format_parse(name, &f));
    return f;
}

// Every kind of value, and tensors of three types.
std::string sample(uint32_t version = 3) {
    GgufBytes g;
    g.header(4, 14, version);
    g.pair("a.u8", 0).value(uint8_t{200});
    g.pair("a.i8", 1).value(int8_t{-3});
    g.pair("a.u16", 2).value(uint16_t{65535});
    g.pair("a.i16", 3).value(int16_t{-300});
    g.pair("a.u32", 4).value(uint32_t{4000000000u});
    g.pair("a.i32", 5).value(int32_t{-70000});
    g.pair("a.f32", 6).value(1.5f);
    g.pair("a.bool", 7).value(uint8_t{1});
    g.pair("a.text", 8).text("two words");
    g.pair("a.u64", 10).value(uint64_t{1} << 40);
    g.pair("a.i64", 11).value(-(int64_t{1} << 40));
    g.pair("a.f64", 12).value(0.1);
    g.pair("a.texts", 9).value(uint32_t{8}).value(uint64_t{3}).text("one").text("").text("three");
    g.pair("a.ints", 9).value(uint32_t{5}).value(uint64_t{2}).value(int32_t{-1}).value(int32_t{7});
    g.tensor("norm", {6}, 0, 0);
    g.tensor("half", {3, 2}, 1, 32);
    g.tensor("q8", {64, 2}, 8, 64);
    g.tensor("k4", {256, 1, 1}, 12, 224);
    g.data(224 + 144);
    return g.bytes;
}

std::vector<float> decoded(const Checkpoint& c, const std::string& name) {
    const TensorInfo* const t = c.find(name);
    REQUIRE(t != nullptr);
    return c.values(*t);
}

}  // namespace

TEST_CASE("GGUF values and tensors are read, mapped and not", "[checkpoints]") {
    for (const uint32_t version : {2u, 3u}) {
        for (const bool mapped : {true, false}) {
            const std::string bytes = sample(version);
            const auto c = read(bytes, mapped);
            const Metadata& m = c->metadata;
            CHECK(m.integer("a.u8", 0) == 200);
            CHECK(m.integer("a.i8", 0) == -3);
            CHECK(m.integer("a.u16", 0) == 65535);
            CHECK(m.integer("a.i16", 0) == -300);
            CHECK(m.integer("a.u32", 0) == 4000000000);
            CHECK(m.integer("a.i32", 0) == -70000);
            CHECK(m.number("a.f32", 0) == 1.5);
            CHECK(m.boolean("a.bool", false));
            CHECK(m.text("a.text", "") == "two words");
            CHECK(m.integer("a.u64", 0) == int64_t{1} << 40);
            CHECK(m.integer("a.i64", 0) == -(int64_t{1} << 40));
            CHECK(m.number("a.f64", 0) == 0.1);
            CHECK(m.number("a.u8", 0) == 200);
            REQUIRE(m.strings("a.texts") != nullptr);
            CHECK(*m.strings("a.texts") == std::vector<std::string>{"one", "", "three"});
            REQUIRE(m.integers("a.ints") != nullptr);
            CHECK(*m.integers("a.ints") == std::vector<int64_t>{-1, 7});
            CHECK(m.strings("a.ints") == nullptr);
            CHECK(m.integer("absent", 5) == 5);
            CHECK_THROWS_AS(m.integer("a.text", 0), Error);
            CHECK_THROWS_AS(m.boolean("a.u8", false), Error);
            CHECK_THROWS_AS(m.required_integer("absent"), Error);

            REQUIRE(c->tensors.size() == 4);
            CHECK(c->find("norm")->vector);
            CHECK(c->find("norm")->rows == 6);
            CHECK(c->find("half")->rows == 2);
            CHECK(c->find("half")->cols == 3);
            CHECK(format_name(c->find("q8")->format) == "s8:g32:f16:ggml");
            CHECK(format_name(c->find("k4")->format) == "u4:g32:u6*f16/256:min:ggml");
            CHECK(c->find("nothing") == nullptr);
            CHECK(c->tensor_bytes() == 24 + 12 + 136 + 144);
            CHECK(c->mapped(c->tensors[0]) == mapped);
            std::vector<uint8_t> scratch;
            const WeightView w = c->view(*c->find("half"), scratch);
            CHECK(w.codes[0] == 32);
            CHECK(w.codes[11] == 43);
            c->release(*c->find("q8"));
        }
    }
}

TEST_CASE("each GGUF type has its format and the reverse", "[checkpoints]") {
    int implemented = 0;
    for (uint32_t id = 0; id < 50; ++id) {
        Format f;
        if (!gguf_type_format(id, &f)) continue;
        ++implemented;
        uint32_t back = 99;
        CHECK(gguf_format_type(f, 256, &back));
        CHECK(back == id);
        CHECK(gguf_type_name(id) != nullptr);
    }
    CHECK(implemented == 11);
    uint32_t id;
    CHECK(gguf_format_type(format("s8:g32:f16"), 96, &id));
    CHECK(id == 8);
    CHECK_FALSE(gguf_format_type(format("s8:g32:f16"), 100, &id));  // the last block would be short
    CHECK_FALSE(gguf_format_type(format("s8:channel:f16"), 96, &id));
    CHECK_FALSE(gguf_format_type(format("u4:g32:f32:min"), 96, &id));
}

TEST_CASE("files that are not what they claim are one line each", "[checkpoints]") {
    const uint64_t huge = uint64_t{1} << 60;
    const auto floats = [](const std::vector<uint64_t>& sizes, uint64_t offset, uint32_t type = 0) {
        return GgufBytes().header(1, 0).tensor("w", sizes, type, offset).data(4096).bytes;
    };
    struct {
        const char* what;
        std::string bytes;
        quant_status status;
        const char* says;
    } const cases[] = {
        {"empty", "", QUANT_ERR_CORRUPT, "not a GGUF"},
        {"magic", std::string(64, 'x'), QUANT_ERR_CORRUPT, "not a GGUF"},
        {"version 1", GgufBytes().header(0, 0, 1).bytes, QUANT_ERR_UNSUPPORTED, "version 1"},
        {"big endian", GgufBytes().header(0, 0, 3u << 24).bytes, QUANT_ERR_UNSUPPORTED, "big-endian"},
        {"tensors", GgufBytes().header(huge, 0).data(4096).bytes, QUANT_ERR_CORRUPT, "1152921504606846976 tensors"},
        {"pairs", GgufBytes().header(0, huge).data(4096).bytes, QUANT_ERR_CORRUPT, "metadata keys"},
        {"key length", GgufBytes().header(0, 1).value(huge).data(64).bytes, QUANT_ERR_CORRUPT, "length"},
        {"text length", GgufBytes().header(0, 1).pair("k", 8).value(huge).data(64).bytes, QUANT_ERR_CORRUPT, "length"},
        {"array length", GgufBytes().header(0, 1).pair("k", 9).value(8u).value(huge).data(64).bytes, QUANT_ERR_CORRUPT,
         "values of metadata key k"},
        {"number array", GgufBytes().header(0, 1).pair("k", 9).value(12u).value(huge).data(64).bytes, QUANT_ERR_CORRUPT,
         "values of metadata key k"},
        {"nested array", GgufBytes().header(0, 1).pair("k", 9).value(9u).value(uint64_t{1}).data(64).bytes,
         QUANT_ERR_CORRUPT, "array of arrays"},
        {"value type", GgufBytes().header(0, 1).pair("k", 77).data(64).bytes, QUANT_ERR_CORRUPT, "unknown type 77"},
        {"key twice", GgufBytes().header(0, 2).pair("k", 0).value(uint8_t{1}).pair("k", 0).data(64).bytes,
         QUANT_ERR_CORRUPT, "twice"},
        {"alignment 0", GgufBytes().header(0, 1).pair("general.alignment", 4).value(0u).data(64).bytes,
         QUANT_ERR_CORRUPT, "general.alignment"},
        {"alignment 48", GgufBytes().header(0, 1).pair("general.alignment", 4).value(48u).data(64).bytes,
         QUANT_ERR_CORRUPT, "general.alignment"},
        {"alignment text", GgufBytes().header(0, 1).pair("general.alignment", 8).text("x").data(64).bytes,
         QUANT_ERR_CORRUPT, "general.alignment"},
        {"no dimensions", floats({}, 0), QUANT_ERR_CORRUPT, "0 dimensions"},
        {"five dimensions", floats({1, 1, 1, 1, 1}, 0), QUANT_ERR_CORRUPT, "5 dimensions"},
        {"three dimensions", floats({2, 2, 2}, 0), QUANT_ERR_UNSUPPORTED, "tensor w"},
        {"dimension 0", floats({0, 4}, 0), QUANT_ERR_CORRUPT, "dimension of 0"},
        {"dimension 2^63", floats({uint64_t{1} << 63}, 0), QUANT_ERR_CORRUPT, "dimension"},
        {"product overflows", floats({uint64_t{1} << 32, uint64_t{1} << 32}, 0), QUANT_ERR_CORRUPT, "does not fit"},
        {"product wraps to 4", floats({(uint64_t{1} << 62) + 1, 4}, 0), QUANT_ERR_CORRUPT, "does not fit"},
        {"past the end", floats({1025}, 0), QUANT_ERR_CORRUPT, "beyond the end"},
        {"offset past the end", floats({4}, 8192), QUANT_ERR_CORRUPT, "beyond the end"},
        {"offset overflows", floats({4}, ~uint64_t{31}), QUANT_ERR_CORRUPT, "beyond the end"},
        {"offset unaligned", floats({4}, 4), QUANT_ERR_CORRUPT, "aligned"},
        {"type unknown", floats({32}, 0, 36), QUANT_ERR_UNSUPPORTED, "number 36"},
        {"type IQ4_NL", floats({32, 1}, 0, 20), QUANT_ERR_UNSUPPORTED, "IQ4_NL"},
        {"part of a block", floats({100, 1}, 0, 8), QUANT_ERR_CORRUPT, "multiple"},
        {"quantized vector", floats({64}, 0, 8), QUANT_ERR_CORRUPT, "vector"},
        {"tensor twice", GgufBytes().header(2, 0).tensor("w", {4}, 0, 0).tensor("w", {4}, 0, 32).data(64).bytes,
         QUANT_ERR_CORRUPT, "twice"},
        {"overlap", GgufBytes().header(2, 0).tensor("v", {16}, 0, 0).tensor("w", {4}, 0, 32).data(64).bytes,
         QUANT_ERR_CORRUPT, "overlap"},
        {"name of two lines", GgufBytes().header(1, 0).tensor("a\nb", {4}, 77, 0).data(64).bytes, QUANT_ERR_UNSUPPORTED,
         "tensor a?b"},
    };
    for (const auto& c : cases) {
        std::string what;
        INFO(c.what);
        CHECK(failure(c.bytes, &what) == c.status);
        INFO(what);
        CHECK(contains(what, c.says));
        CHECK(what.find('\n') == std::string::npos);
    }
}

TEST_CASE("a GGUF file truncated at any byte or with any byte flipped is read or refused", "[checkpoints]") {
    const std::string bytes = sample();
    REQUIRE(failure(bytes) == QUANT_OK);
    for (size_t n = 0; n < bytes.size(); ++n) {
        const std::vector<char> exact(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
        try {
            read_gguf(open_memory(exact.data(), n));
            FAIL("accepted " << n << " of " << bytes.size() << " bytes");
        } catch (const Error&) {
        }
    }
    for (size_t i = 0; i < bytes.size(); ++i) {
        for (const int flip : {1, 0x80, 0xff}) {
            std::string other = bytes;
            other[i] = static_cast<char>(other[i] ^ flip);
            try {
                const auto c = read(other);
                for (const TensorInfo& t : c->tensors) decoded(*c, t.name);
            } catch (const Error&) {
            }
        }
    }
}

TEST_CASE("what the writer writes is read back: every format, every kind of value", "[checkpoints]") {
    const TemporaryDirectory directory;
    const std::string path = directory.path("out.gguf");
    Metadata m;
    m.set("a.count", uint64_t{7});
    m.set("a.wide", uint64_t{1} << 40);
    m.set("a.signed", int64_t{-7});
    m.set("a.signed_wide", -(int64_t{1} << 40));
    m.set("a.number", 0.5);
    m.set("a.flag", true);
    m.set("a.text", std::string("text"));
    m.set("a.ints", std::vector<int64_t>{1, -2});
    m.set("a.wide_ints", std::vector<int64_t>{int64_t{1} << 40});
    m.set("a.numbers", std::vector<double>{0.25, -8});
    m.set("a.texts", std::vector<std::string>{"a", ""});
    m.set("a.none", std::vector<std::string>{});
    m.set("general.alignment", uint64_t{64});

    const char* const formats[] = {"f32",
                                   "f16",
                                   "bf16",
                                   "s8:g32:f16",
                                   "u4:g32:f16:z8",
                                   "u4:g32:f16:min",
                                   "s8:channel:f16",
                                   "s8:tensor:f32",
                                   "u8:g128:f16:min",
                                   "u8:g64:f32:zp",
                                   "u5:g32:bf16:z16",
                                   "u4:b16:f32:zp",
                                   "u6:channel:f16:min",
                                   "e4m3:b128:f32",
                                   "e4m3:channel:f32"};
    struct Encoded {
        PlannedTensor plan;
        std::vector<uint8_t> codes, scales, zeros;
        std::vector<float> values;
    };
    std::vector<Encoded> all;
    for (const char* name : formats) {
        for (const int64_t cols : {64, 33}) {
            Encoded e;
            const int64_t rows = 19;
            const Format f = format(name);
            e.plan = {std::string("w.") + name + "." + std::to_string(cols), f, rows, cols, false};
            std::vector<float> values(static_cast<size_t>(rows * cols));
            for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>((i * 7919) % 201) / 100 - 1;
            e.codes.resize(codes_bytes(f, rows, cols));
            e.scales.resize(scales_bytes(f, rows, cols));
            e.zeros.resize(zeros_bytes(f, rows, cols));
            Encoder encoder(f, rows, cols);
            for (int64_t r = 0; encoder.needs_observation() && r < rows; ++r)
                encoder.observe(r, values.data() + r * cols);
            encoder.encode_shared(e.scales.data(), e.zeros.data());
            for (int64_t r = 0; r < rows; ++r)
                encoder.encode_row(r, values.data() + r * cols,
                                   e.codes.data() + static_cast<size_t>(r) * codes_row_bytes(f, cols), e.scales.data(),
                                   e.zeros.data());
            WeightView w;
            w.format = f;
            w.rows = rows;
            w.cols = cols;
            w.codes = e.codes.data();
            w.scales = e.scales.data();
            w.zeros = e.zeros.data();
            e.values.resize(values.size());
            for (int64_t r = 0; r < rows; ++r) decode_row(w, r, e.values.data() + r * cols);
            all.push_back(std::move(e));
        }
    }
    Encoded vector;
    vector.plan = {"bias", format("f32"), 5, 1, true};
    vector.values = {1, 2, 3, 4, 5};
    vector.codes.resize(20);
    std::memcpy(vector.codes.data(), vector.values.data(), 20);
    all.push_back(vector);

    std::vector<PlannedTensor> plan;
    for (const Encoded& e : all) plan.push_back(e.plan);
    {
        GgufWriter writer(path, m, plan);
        for (const Encoded& e : all) {
            CHECK_FALSE(std::filesystem::exists(path));
            writer.tensor(e.codes.data(), e.scales.data(), e.zeros.data());
        }
        writer.finish();
    }
    CHECK_FALSE(std::filesystem::exists(path + ".partial"));

    for (const bool map : {true, false}) {
        const auto c = open_checkpoint(path, map);
        m.erase("general.alignment");
        REQUIRE(c->metadata.all().size() == m.all().size());
        for (const auto& pair : m.all()) CHECK(c->metadata.all().at(pair.first) == pair.second);
        REQUIRE(c->tensors.size() == all.size());
        for (const Encoded& e : all) {
            INFO(e.plan.name);
            const TensorInfo* const t = c->find(e.plan.name);
            REQUIRE(t != nullptr);
            CHECK(t->vector == e.plan.vector);
            CHECK(t->rows == e.plan.rows);
            CHECK(t->cols == e.plan.cols);
            const bool native = t->format.storage == Storage::ggml || is_float(t->format.element);
            CHECK(native == (is_float(e.plan.format.element) ||
                             (e.plan.cols == 64 &&
                              (e.plan.format == format("s8:g32:f16") || e.plan.format == format("u4:g32:f16:z8") ||
                               e.plan.format == format("u4:g32:f16:min")))));
            if (!native) CHECK(t->format == e.plan.format);
            CHECK(decoded(*c, e.plan.name) == e.values);
            if (map) c->release(*t);
            CHECK(decoded(*c, e.plan.name) == e.values);  // released pages come back
        }
    }

    // The planar parts contradict each other in any way: refused, not misread.
    const std::string bytes = read_bytes(path);
    for (size_t i = 0; i < bytes.size() && i < 6000; ++i) {
        std::string other = bytes;
        other[i] = static_cast<char>(other[i] ^ 0x10);
        try {
            const auto c = read(other);
            for (const TensorInfo& t : c->tensors) decoded(*c, t.name);
        } catch (const Error&) {
        }
    }
}

TEST_CASE("a writer that fails or stops leaves no file", "[checkpoints]") {
    const TemporaryDirectory directory;
    const std::string path = directory.path("out.gguf");
    const std::vector<PlannedTensor> plan = {{"w", format("f32"), 2, 2, false}, {"v", format("f32"), 2, 2, false}};
    const float values[4] = {};
    {
        GgufWriter writer(path, Metadata(), plan);
        writer.tensor(reinterpret_cast<const uint8_t*>(values), nullptr, nullptr);
        CHECK_THROWS_AS(writer.finish(), Error);
        CHECK(std::filesystem::exists(path + ".partial"));
    }
    CHECK(std::filesystem::is_empty(directory.path()));
    CHECK_THROWS_AS(GgufWriter(directory.path("no/such/out.gguf"), Metadata(), plan), Error);
    CHECK_THROWS_AS(GgufWriter(path, Metadata(), {{"w", format("s8:channel:f16"), 4, 1, true}}), Error);
    CHECK(std::filesystem::is_empty(directory.path()));
#ifdef __linux__
    if (std::filesystem::exists("/dev/full")) {
        std::filesystem::create_symlink("/dev/full", path + ".partial");
        std::string what;
        try {
            GgufWriter writer(path, Metadata(), plan);
            for (int i = 0; i < 2; ++i) writer.tensor(reinterpret_cast<const uint8_t*>(values), nullptr, nullptr);
            writer.finish();
        } catch (const Error& e) {
            CHECK(e.status() == QUANT_ERR_IO);
            what = e.what();
        }
        CHECK(contains(what, "disk full"));
        CHECK_FALSE(std::filesystem::exists(path));
    }
#endif
}

TEST_CASE("files that cannot be opened are one line", "[checkpoints]") {
    const TemporaryDirectory directory;
    directory.write("text", "not a model");
    directory.write("empty", "");
    for (const bool map : {true, false}) {
        for (const char* name : {"absent", "text", "empty", "."}) {
            INFO(name);
            try {
                open_checkpoint(directory.path(name), map);
                FAIL("opened");
            } catch (const Error& e) {
                CHECK(contains(e.what(), directory.path(name)));
            }
        }
    }
    std::vector<uint8_t> scratch;
    const auto empty = open_file(directory.path("empty"), true);
    CHECK(empty->size() == 0);
    CHECK_THROWS_AS(empty->at(0, 1, scratch), Error);
    const auto text = open_file(directory.path("text"), false);
    CHECK(text->mapping() == nullptr);
    CHECK(std::memcmp(text->at(4, 3, scratch), "a m", 3) == 0);
    CHECK_THROWS_AS(text->at(~uint64_t{0}, 2, scratch), Error);
}

TEST_CASE("a vocabulary of 128k tokens is read quickly", "[checkpoints]") {
    GgufBytes g;
    g.header(0, 2);
    g.pair("tokenizer.ggml.tokens", 9).value(8u).value(uint64_t{128000});
    for (int i = 0; i < 128000; ++i) g.text("token" + std::to_string(i));
    g.pair("tokenizer.ggml.merges", 9).value(8u).value(uint64_t{280000});
    for (int i = 0; i < 280000; ++i) g.text("left" + std::to_string(i) + " right" + std::to_string(i));
    for (const bool mapped : {true, false}) {
        double best = 1e9;
        for (int i = 0; i < 3; ++i) {
            const auto start = std::chrono::steady_clock::now();
            const auto c = read(g.bytes, mapped);
            best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
            REQUIRE(c->metadata.strings("tokenizer.ggml.merges")->back() == "left279999 right279999");
        }
        CHECK(best < 1.5);  // measured at 0.03 s; a sanitizer build on a busy machine takes longer
    }
}
