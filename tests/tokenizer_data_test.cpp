// Real vocabularies against the ids that their own tokenizers gave; these run only with QUANT_TEST_DATA.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "checkpoints/checkpoint.h"
#include "models/tokenizer.h"

using namespace quant;

namespace {

using Ids = std::vector<int32_t>;

// The reference data, or "" after saying that it is not there.
std::string reference_data() {
    const char* root = std::getenv("QUANT_TEST_DATA");
    if (root != nullptr && *root != '\0') return std::string(root) + "/";
    WARN("SKIPPED: the reference tokenizers are not part of this repository; set QUANT_TEST_DATA to their directory");
    return {};
}

std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    INFO(path);
    REQUIRE(file.good());
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The texts before each separator.
std::vector<std::string> split(const std::string& all, const std::string& separator) {
    std::vector<std::string> parts;
    size_t at = 0;
    for (size_t end; (end = all.find(separator, at)) != all.npos; at = end + separator.size())
        parts.push_back(all.substr(at, end - at));
    CHECK(at == all.size());
    return parts;
}

}  // namespace

TEST_CASE("the vocabularies of Llama 2 and Llama 3 give the reference ids", "[tokenizer][data]") {
    const std::string root = reference_data();
    if (root.empty()) return;
    for (const char* name : {"llama-spm", "llama-bpe"}) {
        const std::string path = root + "tokenizers/ggml-vocab-" + name + ".gguf";
        const auto checkpoint = open_checkpoint(path, true);
        const auto t = Tokenizer::create(checkpoint->metadata, 1 << 20);
        REQUIRE(t != nullptr);
        const auto texts = split(read_file(path + ".inp"), "\n__ggml_vocab_test__\n");
        const auto lines = split(read_file(path + ".out"), "\n");
        REQUIRE(texts.size() == 46);
        REQUIRE(lines.size() == texts.size());
        for (size_t i = 0; i < texts.size(); ++i) {
            std::string ids;
            for (int32_t id : t->encode(texts[i], false, false)) ids += " " + std::to_string(id);
            INFO(name << " case " << i << ": " << texts[i]);
            CHECK((ids == lines[i] || (ids.empty() && lines[i] == " ")));
            CHECK(t->decode(t->encode(texts[i], false, false), false) == texts[i]);
        }
    }
}

TEST_CASE("the trained models' tokenizers give the reference ids", "[tokenizer][data]") {
    const std::string root = reference_data();
    if (root.empty()) return;
    for (const char* name : {"tiny", "base"}) {
        const std::string directory = root + "models/" + name + "/";
        const auto checkpoint = open_checkpoint(directory, true);
        const auto reference = nlohmann::json::parse(read_file(directory + "reference.json"));
        const auto t = Tokenizer::create(checkpoint->metadata, 1 << 20);
        REQUIRE(t != nullptr);
        for (const auto& one : reference.at("tokenizer_cases")) {
            const std::string text = one.at("text");
            INFO(name << ": " << text);
            const Ids ids = t->encode(text, true, true);
            CHECK(ids == one.at("ids_with_bos").get<Ids>());
            CHECK(t->decode(ids, false) == one.at("decoded_skip_special").get<std::string>());
        }
        for (const char* file : {"general-heldout", "stories-heldout", "tinyshakespeare", "wikitext2-test"}) {
            std::string text = read_file(root + "eval/" + file + ".txt");
            if (file == std::string("tinyshakespeare")) text.erase(0, text.size() - 100000);
            const std::string bytes = read_file(directory + "ids/" + file + ".u16");
            Ids expected;
            for (size_t i = 0; i + 1 < bytes.size(); i += 2)
                expected.push_back(static_cast<uint8_t>(bytes[i]) | static_cast<uint8_t>(bytes[i + 1]) << 8);
            INFO(name << ": " << file);
            const bool equal = t->encode(text, false, true) == expected;  // not 450,000 ids in a message
            CHECK(equal);
        }
    }
}
