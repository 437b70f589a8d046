// Weights packed in a file: the same rows and the same text as from the file that is not packed, on every device.
#include <catch2/catch.hpp>
#include <map>

#include "checkpoints/checkpoint.h"
#include "checkpoints/gguf_writer.h"
#include "models/save.h"
#include "tests/checkpoint_fixture.h"
#include "tests/kernel_rig.h"
#include "tests/llama_fixture.h"

using namespace quant;

namespace {

// Float32 logits of a short prompt from the file, as stored.
std::vector<float> logits_of(const std::string& path, const std::string& device, bool map = true) {
    TestServices services;
    auto checkpoint = open_checkpoint(path, map);
    const int layers = read_llama_config(*checkpoint).layers;
    Session session(load_test_model(std::move(checkpoint), {{device, layers}}, "", services), 0);
    return all_logits(session, {1, 40, 7, 130, 12, 90, 41});
}

std::string failure_of(const std::string& bytes) {
    try {
        const auto c = read_gguf(open_memory(bytes.data(), bytes.size()));
        for (const TensorInfo& t : c->tensors) c->values(t);
        return "";
    } catch (const Error& e) {
        return e.what();
    }
}

// A file with one packed tensor and one that is not.
std::string packed_bytes() {
    const TemporaryDirectory directory;
    Random random(5);
    Format format;
    REQUIRE(format_parse("u4:g32:f16:min", &format));
    const HostWeight w = random_weight(format, 19, 64, false, random);
    const Layout* const layout = find_layout("rows8");
    PlannedTensor packed, plain;
    packed.name = "packed";
    packed.format = plain.format = format;
    packed.rows = plain.rows = w.rows;
    packed.cols = plain.cols = w.cols;
    packed.layout = layout;
    plain.name = "plain";
    GgufWriter writer(directory.path("one.gguf"), Metadata{}, {packed, plain});
    writer.tensor(pack(*layout, w).data(), nullptr, nullptr);
    writer.tensor(w.codes.data(), w.scales.data(), w.zeros.data());
    writer.finish();
    return directory.read("one.gguf");
}

}  // namespace

TEST_CASE("a file packed for one device computes the same on every other", "[checkpoints][llama]") {
    TestServices services;
    const TemporaryDirectory directory;
    const std::string plain = directory.path("plain.gguf"), packed = directory.path("packed.gguf"),
                      again = directory.path("again.gguf");
    SmallLlama shape;
    shape.bias = true;
    const auto checkpoint = small_checkpoint(shape);
    const auto ignore = [](float) {};
    for (const char* name : {"f16", "a16w8:g32:sym", "a16w4:g32", "a8w8", "fp8:block"}) {
        WeightChoice choice;
        choice.scheme.emplace();
        REQUIRE(scheme_parse(name, &*choice.scheme));
        save_checkpoint(*checkpoint, choice, nullptr, services.pool, plain, ignore);
        std::map<std::string, std::vector<float>> expected;
        for (const std::string& user : usable_cpu_devices()) expected[user] = logits_of(plain, user);
        expected["loopback"] = logits_of(plain, "loopback");
        for (const std::string& packer : usable_cpu_devices()) {
            if (packer == "cpu:reference") continue;
            const auto device = create_backend(packer.c_str(), services.device());
            save_checkpoint(*checkpoint, choice, device.get(), services.pool, packed, ignore);
            for (const auto& [user, logits] : expected) {
                INFO(name << " packed for " << packer << ", used by " << user);
                CHECK((logits_of(packed, user) == logits));
            }
            CHECK((logits_of(packed, packer, false) == expected[packer]));
            const auto source = open_checkpoint(packed, true);
            save_checkpoint(*source, {}, nullptr, services.pool, again, ignore);
            CHECK((logits_of(again, packer) == expected[packer]));
        }
    }
}

TEST_CASE("packed files that are not what they claim are one line each", "[checkpoints]") {
    const std::string bytes = packed_bytes();
    REQUIRE(failure_of(bytes).empty());
    const auto c = read_gguf(open_memory(bytes.data(), bytes.size()));
    CHECK(c->values(*c->find("packed")) == c->values(*c->find("plain")));

    std::string other = bytes;
    other.replace(other.find("rows8"), 5, "rows9");
    CHECK(failure_of(other).find("unknown layout rows9") != std::string::npos);
    for (size_t n = 0; n + 64 <= bytes.size(); ++n) CHECK_FALSE(failure_of(bytes.substr(0, n)).empty());
    for (size_t i = 0; i < bytes.size(); ++i)
        for (const int flip : {1, 0x80, 0xff}) {
            other = bytes;
            other[i] = static_cast<char>(other[i] ^ flip);
            CHECK(failure_of(other).find('\n') == std::string::npos);
        }
}

TEST_CASE("a device without a layout that a file can have is refused", "[checkpoints]") {
    TestServices services;
    const TemporaryDirectory directory;
    const auto reference = create_backend("cpu:reference", services.device());
    const auto checkpoint = open_checkpoint(tiny_path(), true);
    CHECK_THROWS_WITH(
        save_checkpoint(*checkpoint, {}, reference.get(), services.pool, directory.path("p.gguf"), [](float) {}),
        "nothing to pack: no weight of this scheme has a layout on cpu:reference that a file can have");
}
