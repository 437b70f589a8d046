// Tokenizers: splitting rules, merging, added tokens and UTF-8 on small vocabularies made up here. The real
// ones are in tokenizer_data_test.cpp.
#include "models/tokenizer.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <iterator>
#include <limits>
#include <map>
#include <random>
#include <string_view>

#include "formats/error.h"
#include "models/tokenizer_split.h"

using namespace quant;

namespace {

using Ids = std::vector<int32_t>;
enum Type : int64_t { normal = 1, unknown, control, user_defined, unused, byte };

// A vocabulary being made up. SentencePiece's begins <unk> <s> </s>, then the 256 byte tokens unless left out.
struct Vocabulary {
    std::vector<std::string> tokens, merges;
    std::vector<int64_t> types;
    std::vector<double> scores;

    int32_t add(const std::string& text, Type type = normal, double score = 0) {
        tokens.push_back(text);
        types.push_back(type);
        scores.push_back(score);
        return static_cast<int32_t>(tokens.size()) - 1;
    }

    static Vocabulary sentence_piece(bool bytes = true) {
        Vocabulary v;
        v.add("<unk>", unknown);
        v.add("<s>", control);
        v.add("</s>", control);
        const char* digits = "0123456789ABCDEF";
        for (int b = 0; bytes && b < 256; ++b) v.add(std::string("<0x") + digits[b >> 4] + digits[b & 15] + ">", byte);
        return v;
    }

    Metadata metadata(const std::string& model) const {
        Metadata m;
        m.set("tokenizer.ggml.model", model);
        m.set("tokenizer.ggml.tokens", tokens);
        m.set("tokenizer.ggml.token_type", types);
        m.set("tokenizer.ggml.bos_token_id", uint64_t{1});
        m.set("tokenizer.ggml.eos_token_id", uint64_t{2});
        return m;
    }
    Metadata by_score() const {
        Metadata m = metadata("llama");
        m.set("tokenizer.ggml.scores", scores);
        return m;
    }
    Metadata by_rank() const {
        Metadata m = metadata("llama");
        m.set("tokenizer.ggml.merges", merges);
        return m;
    }
};

std::unique_ptr<Tokenizer> create(const Metadata& metadata) {
    return Tokenizer::create(metadata, 1 << 20);
}

// GPT-2's spelling of a byte.
std::string spelled(uint8_t byte) {
    if ((byte >= 0x21 && byte <= 0x7E)) return std::string(1, static_cast<char>(byte));
    int code = byte;
    if (byte < 0xA1 || byte == 0xAD) code = 256 + (byte <= 0x20 ? byte : byte < 0xA1 ? byte - 0x7F + 33 : 67);
    return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
}

std::string spelled(const std::string& text) {
    std::string out;
    for (char c : text) out += spelled(static_cast<uint8_t>(c));
    return out;
}

// Byte level: the 256 bytes, BOS and EOS, then merges of running text.
struct ByteLevel : Vocabulary {
    ByteLevel() {
        for (int b = 0; b < 256; ++b) add(spelled(static_cast<uint8_t>(b)));
        add("<s>", control);
        add("</s>", control);
    }
    int32_t merge(const std::string& left, const std::string& right) {
        merges.push_back(spelled(left) + " " + spelled(right));
        return add(spelled(left + right));
    }
    Metadata byte_level(const std::string& pre) const {
        Metadata m = metadata("gpt2");
        m.set("tokenizer.ggml.merges", merges);
        m.set("tokenizer.ggml.pre", pre);
        m.set("tokenizer.ggml.bos_token_id", uint64_t{256});
        m.set("tokenizer.ggml.eos_token_id", uint64_t{257});
        return m;
    }
};

std::string random_bytes(std::mt19937& random, size_t most) {
    std::string text(random() % (most + 1), '\0');
    for (char& c : text) c = static_cast<char>(random() % 4 ? "ab c<\n\xE2\x96\x81"[random() % 9] : random() % 256);
    return text;
}

std::vector<std::string> pieces(SplitRule rule, std::string_view text) {
    std::vector<std::string> out;
    while (!text.empty()) {
        const size_t n = first_piece(rule, text);
        out.emplace_back(text.substr(0, n));
        text.remove_prefix(n);
    }
    return out;
}

quant_status status_of(const Metadata& metadata, int64_t vocabulary = 1 << 20) {
    try {
        Tokenizer::create(metadata, vocabulary);
    } catch (const Error& e) {
        INFO(e.what());
        CHECK(std::string(e.what()).find('\n') == std::string::npos);
        return e.status();
    }
    return QUANT_OK;
}

template <class F>
double seconds(const F& f) {
    const auto start = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("splitting agrees with the models' regular expressions", "[tokenizer]") {
    using Pieces = std::vector<std::string>;
    struct Case {
        const char* text;
        Pieces gpt2, llama3, qwen2;
    };
    const Pieces same;  // as gpt2
    const Case cases[] = {
        {"Hello world", {"Hello", " world"}, same, same},
        {" Hello  world", {" Hello", " ", " world"}, same, same},
        {"a   b", {"a", "  ", " b"}, same, same},
        {"a \t b", {"a", " \t", " b"}, same, same},
        {"a\tb", {"a", "\t", "b"}, {"a", "\tb"}, {"a", "\tb"}},
        {"a  ", {"a", "  "}, same, same},
        {"   ", {"   "}, same, same},
        {"it's WE'LL 'x",
         {"it", "'s", " WE", "'", "LL", " '", "x"},
         {"it", "'s", " WE", "'LL", " '", "x"},
         {"it", "'s", " WE", "'LL", " '", "x"}},
        {"'re've'm'd't", {"'re", "'ve", "'m", "'d", "'t"}, same, same},
        {"'r 'l", {"'", "r", " '", "l"}, {"'r", " '", "l"}, {"'r", " '", "l"}},
        {"'\xC5\xBF", {"'", "\xC5\xBF"}, {"'\xC5\xBF"}, {"'\xC5\xBF"}},  // long s
        {"12345 678", {"12345", " 678"}, {"123", "45", " ", "678"}, {"1", "2", "3", "4", "5", " ", "6", "7", "8"}},
        {"a1b", {"a", "1", "b"}, same, same},
        {"(hi)", {"(", "hi", ")"}, {"(hi", ")"}, {"(hi", ")"}},
        {" (hi) ", {" (", "hi", ")", " "}, {" (", "hi", ")", " "}, {" (", "hi", ")", " "}},
        {"!?\n\nx", {"!?", "\n", "\n", "x"}, {"!?\n\n", "x"}, {"!?\n\n", "x"}},
        {" \n \n  x", {" \n \n ", " x"}, {" \n \n", " ", " x"}, {" \n \n", " ", " x"}},
        {"x\r\n", {"x", "\r\n"}, same, same},
        {"\nx", {"\n", "x"}, same, same},
        {" \nx", {" ", "\n", "x"}, {" \n", "x"}, {" \n", "x"}},
        {"\xC2\xA0x", {"\xC2\xA0", "x"}, {"\xC2\xA0x"}, {"\xC2\xA0x"}},  // no-break space
        {"\xE3\x80\x80\xE3\x80\x80y",
         {"\xE3\x80\x80", "\xE3\x80\x80", "y"},
         {"\xE3\x80\x80", "\xE3\x80\x80y"},
         {"\xE3\x80\x80", "\xE3\x80\x80y"}},  // ideographic space
        {"\xE6\x88\x91\xE6\x83\xB3 \xC2\xBD\xD9\xA3",
         {"\xE6\x88\x91\xE6\x83\xB3", " \xC2\xBD\xD9\xA3"},
         {"\xE6\x88\x91\xE6\x83\xB3", " ", "\xC2\xBD\xD9\xA3"},
         {"\xE6\x88\x91\xE6\x83\xB3", " ", "\xC2\xBD", "\xD9\xA3"}},
        {"e\xCC\x81t",
         {"e", "\xCC\x81", "t"},
         {"e", "\xCC\x81t"},
         {"e", "\xCC\x81t"}},  // a combining mark is no letter
        {"a\xFF\xFE"
         "b",
         {"a", "\xFF\xFE", "b"},
         {"a", "\xFF\xFE", "b"},
         {"a", "\xFF\xFE", "b"}},
        {"\xE6\x88", {"\xE6\x88"}, same, same},
    };
    for (const Case& c : cases) {
        INFO(c.text);
        CHECK(pieces(SplitRule::gpt2, c.text) == c.gpt2);
        CHECK(pieces(SplitRule::llama3, c.text) == (c.llama3.empty() ? c.gpt2 : c.llama3));
        CHECK(pieces(SplitRule::qwen2, c.text) == (c.qwen2.empty() ? c.gpt2 : c.qwen2));
    }
}

TEST_CASE("pieces merge by score, the leftmost first among equals", "[tokenizer]") {
    Vocabulary v = Vocabulary::sentence_piece();
    const int32_t a = v.add("a", normal, -10), b = v.add("b", normal, -11), c = v.add("c", normal, -12);
    const int32_t space = v.add("\xE2\x96\x81", normal, -13);
    const int32_t ab = v.add("ab", normal, -2), bc = v.add("bc", normal, -1), aa = v.add("aa", normal, -3);
    const int32_t space_a = v.add(
        "\xE2\x96\x81"
        "a",
        normal, -4);
    const auto t = create(v.by_score());
    CHECK(t->encode("", false, false) == Ids{});
    CHECK(t->encode("abc", false, false) == Ids{space_a, bc});  // bc first, so not ab
    CHECK(t->encode("bab", false, false) == Ids{space, b, ab});
    CHECK(t->encode("caaa", false, false) == Ids{space, c, aa, a});
    CHECK(t->encode("a", false, false) == Ids{space_a});
    CHECK(t->encode(" a\xE2\x96\x81"
                    "a",
                    false, false) == Ids{space, space_a, space_a});
    CHECK(t->encode("c\n\xC3\xA9\xFF", false, false) == Ids{space, c, 3 + 0x0A, 3 + 0xC3, 3 + 0xA9, 3 + 0xFF});
    CHECK(t->encode("a", true, false) == Ids{1, space_a});
    CHECK(t->adds_bos());
    CHECK(t->decode({1, space_a, 3 + 0xC3, 3 + 0xA9}, false) == "a\xC3\xA9");
    CHECK(t->decode({1, space_a}, true) == "<s> a");
    CHECK(t->piece(space_a, false) == " a");
    CHECK(t->piece(1, false).empty());
    CHECK(t->piece(1, true) == "<s>");
    CHECK(t->piece(-1, true).empty());
    CHECK(t->piece(1 << 20, true).empty());

    Metadata options = v.by_score();
    options.set("tokenizer.ggml.add_space_prefix", false);
    options.set("tokenizer.ggml.add_eos_token", true);
    options.set("tokenizer.ggml.add_bos_token", false);
    const auto plain = create(options);
    CHECK(plain->encode("a", true, false) == Ids{a, 2});
    CHECK(plain->decode({space_a}, false) == " a");
    CHECK(!plain->adds_bos());
}

TEST_CASE("a space goes in front as the scheme says", "[tokenizer]") {
    Vocabulary v = Vocabulary::sentence_piece();
    const int32_t space = v.add("\xE2\x96\x81"), a = v.add("a"), word = v.add("@", user_defined);
    const auto encode = [&](const char* scheme, const char* text) {
        Metadata m = v.by_score();
        if (*scheme) m.set("tokenizer.ggml.space_prefix_scheme", std::string(scheme));
        return create(m)->encode(text, false, false);
    };
    CHECK(encode("", "a@a") == Ids{space, a, word, space, a});
    CHECK(encode("", " a@ a") == Ids{space, space, a, word, space, space, a});
    CHECK(encode("always", "a@a") == Ids{space, a, word, space, a});
    CHECK(encode("always", " a@ a") == Ids{space, a, word, space, a});
    CHECK(encode("always",
                 "\xE2\x96\x81"
                 "a") == Ids{space, a});
    CHECK(encode("first", "a@a") == Ids{space, a, word, a});
    CHECK(encode("first", " a") == Ids{space, a});
    CHECK(encode("first", "@a") == Ids{word, a});
    CHECK_THROWS_AS(encode("last", "a"), Error);

    ByteLevel bytes;
    Metadata m = bytes.byte_level("gpt-2");
    m.set("tokenizer.ggml.add_space_prefix", true);
    CHECK(create(m)->encode("a", false, false) == Ids{' ', 'a'});
    CHECK(create(m)->encode(" a", false, false) == Ids{' ', 'a'});
}

TEST_CASE("without byte tokens, a run of unknown characters is one unknown token", "[tokenizer]") {
    Vocabulary v = Vocabulary::sentence_piece(false);
    const int32_t space = v.add("\xE2\x96\x81"), a = v.add("a");
    CHECK(create(v.by_score())->encode("a\xC3\xA9\xFFz a", false, false) == Ids{space, a, 0, space, a});
    CHECK(create(v.by_rank())->encode("xa", false, false) == Ids{space, 0, a});
    v.types[0] = normal;
    const auto t = create(v.by_score());
    CHECK_THROWS_AS(t->encode("x", false, false), Error);
    CHECK(t->encode("a", false, false) == Ids{space, a});
}

TEST_CASE("merging gives what merging one pair at a time gives", "[tokenizer]") {
    std::mt19937 random(7);
    for (int round = 0; round < 200; ++round) {
        // Pieces over three letters, each made by every split of it that has two pieces, in random order of rank.
        Vocabulary v = Vocabulary::sentence_piece();
        std::map<std::string, int32_t> ids;
        for (const char* letter : {"a", "b", "\xE2\x96\x81"}) ids[letter] = v.add(letter, normal, -1000);
        std::vector<std::pair<std::string, std::string>> merges;
        while (ids.size() < 20) {
            auto left = std::next(ids.begin(), random() % ids.size()),
                 right = std::next(ids.begin(), random() % ids.size());
            const std::string text = left->first + right->first;
            if (text.size() > 16 || ids.count(text)) continue;
            for (const auto& [l, id] : ids)
                for (const auto& [r, other] : ids)
                    if (l + r == text) merges.emplace_back(l, r);
            ids.emplace(text, v.add(text, normal, -static_cast<double>(random() % 8)));
        }
        std::shuffle(merges.begin(), merges.end(), random);
        for (const auto& [l, r] : merges) v.merges.push_back(l + " " + r);
        const bool by_rank = round % 2;
        const auto t = create(by_rank ? v.by_rank() : v.by_score());

        std::string text;
        for (size_t n = random() % 40; n > 0; --n) text += "ab "[random() % 3];
        std::vector<std::string> symbols = {"\xE2\x96\x81"};
        for (char c : text) symbols.push_back(c == ' ' ? "\xE2\x96\x81" : std::string(1, c));
        if (text.empty()) symbols.clear();
        for (;;) {
            double best = std::numeric_limits<double>::infinity();
            size_t at = 0;
            for (size_t i = 0; i + 1 < symbols.size(); ++i) {
                double rank = best;
                if (by_rank) {
                    const auto found =
                        std::find(merges.begin(), merges.end(), std::make_pair(symbols[i], symbols[i + 1]));
                    if (found != merges.end()) rank = static_cast<double>(found - merges.begin());
                } else if (ids.count(symbols[i] + symbols[i + 1])) {
                    rank = -v.scores[static_cast<size_t>(ids[symbols[i] + symbols[i + 1]])];
                }
                if (rank < best) best = rank, at = i;
            }
            if (best == std::numeric_limits<double>::infinity()) break;
            symbols[at] += symbols[at + 1];
            symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
        }
        Ids expected;
        for (const std::string& s : symbols) expected.push_back(ids[s]);
        INFO(text);
        REQUIRE(t->encode(text, false, false) == expected);
    }
}

TEST_CASE("byte level: merges within pieces only, and whole pieces with ignore_merges", "[tokenizer]") {
    ByteLevel v;
    const int32_t th = v.merge("t", "h"), the = v.merge("th", "e"), space_the = v.merge(" ", "the");
    const int32_t he = v.merge("h", "e");
    v.merge("e", " ");                 // never met: a piece ends before the space
    const int32_t hex = v.add("hex");  // no merge makes it
    const auto t = create(v.byte_level("gpt-2"));
    CHECK(t->encode("the the hex", false, false) == Ids{the, space_the, ' ', he, 'x'});
    CHECK(t->encode("hex", false, false) == Ids{he, 'x'});
    CHECK(!t->adds_bos());
    const auto whole = create(v.byte_level("llama-bpe"));
    CHECK(whole->encode("hex thex", false, false) == Ids{hex, space_the, 'x'});
    CHECK(whole->adds_bos());
    CHECK(t->encode("th\xFF", false, false) == Ids{th, 0xFF});
    CHECK(t->decode({space_the, the}, false) == " thethe");
}

TEST_CASE("every text decodes to itself", "[tokenizer]") {
    Vocabulary spm = Vocabulary::sentence_piece();
    for (const char* piece : {"\xE2\x96\x81", "a", "b", "ab",
                              "\xE2\x96\x81"
                              "a",
                              "\xE2\x96\x81\xE2\x96\x81"})
        spm.add(piece);
    spm.add("c<", user_defined);
    ByteLevel bytes;
    bytes.merge("a", "b");
    bytes.merge(" ", "ab");
    bytes.merge("\n", "\n");
    const std::unique_ptr<Tokenizer> all[] = {create(spm.by_score()), create(spm.by_rank()),
                                              create(bytes.byte_level("llama-bpe")), create(bytes.byte_level("qwen2")),
                                              create(bytes.byte_level("gpt-2"))};
    std::mt19937 random(11);
    for (int round = 0; round < 2000; ++round) {
        const std::string text = random_bytes(random, 60);
        for (const auto& t : all) {
            std::string expected = text;
            if (t->size() == all[0]->size()) {  // SentencePiece: U+2581 is a space, and each stretch gets one in front
                for (size_t at; (at = expected.find("\xE2\x96\x81")) != expected.npos;) expected.replace(at, 3, " ");
                for (size_t at = expected.find("c<"); at != expected.npos; at = expected.find("c<", at + 2))
                    if (at + 2 < expected.size() && expected.compare(at + 2, 2, "c<") != 0)
                        expected.insert(at + 2, " ");
            }
            REQUIRE(t->decode(t->encode(text, true, false), false) == expected);
        }
    }
}

TEST_CASE("added tokens are cut first, the longest at each place", "[tokenizer]") {
    Vocabulary v = Vocabulary::sentence_piece();
    const int32_t space = v.add("\xE2\x96\x81"), a = v.add("a"),
                  space_a = v.add(
                      "\xE2\x96\x81"
                      "a");
    const int32_t tag = v.add("<|x|>", control), longer = v.add("<|x|>y", control), word = v.add("aba", user_defined);
    v.add("<|x|>", user_defined);  // a second one of the same text is never met
    const auto t = create(v.by_score());
    CHECK(t->encode("a<|x|>a<|x|>ya", false, true) == Ids{space_a, tag, space_a, longer, space_a});
    CHECK(t->encode("<|x|><s>", false, true) == Ids{tag, 1});
    CHECK(t->encode("<unk>a", false, true) == Ids{0, space_a});
    CHECK(t->encode("<|x|", false, true) == Ids{space, 3 + '<', 3 + '|', 3 + 'x', 3 + '|'});
    CHECK(t->encode("ababa", false, false) == Ids{word, space, 3 + 'b', a});
    const Ids plain = t->encode("<s>", false, false);
    CHECK(plain == Ids{space, 3 + '<', 3 + 's', 3 + '>'});
    CHECK(t->is_special(tag));
    CHECK(!t->is_special(word));
    CHECK(!t->is_special(a));
    CHECK(!t->is_special(-1));
    CHECK(!t->is_special(1 << 20));
    CHECK(t->piece(word, false) == "aba");
}

TEST_CASE("plain text never becomes a control token", "[tokenizer]") {
    ByteLevel v;
    const int32_t tag = v.merge("<", "x");
    v.types.back() = control;
    const auto t = create(v.byte_level("llama-bpe"));
    CHECK(t->encode("<x", false, false) == Ids{'<', 'x'});
    CHECK(t->encode("<x", false, true) == Ids{tag});
}

TEST_CASE("generation ends at every end token", "[tokenizer]") {
    Vocabulary v = Vocabulary::sentence_piece();
    const int32_t turn = v.add("<|im_end|>", control), text = v.add("<|eot_id|>"), listed = v.add("<|z|>", control);
    const int32_t eot = v.add("<|w|>", control);
    Metadata m = v.by_score();
    m.set("tokenizer.ggml.eos_token_ids", std::vector<int64_t>{2, listed});
    m.set("tokenizer.ggml.eot_token_id", uint64_t(eot));
    const auto t = create(m);
    for (int32_t id : {2, turn, listed, eot}) CHECK(t->is_end(id));
    for (int32_t id : {-1, 0, 1, text}) CHECK(!t->is_end(id));
    CHECK(t->bos() == 1);
    CHECK(t->eos() == 2);
}

TEST_CASE("a tokenizer that contradicts itself is one error", "[tokenizer]") {
    CHECK(create(Metadata()) == nullptr);
    Vocabulary v = Vocabulary::sentence_piece();
    v.add("a");
    v.add("a");  // a duplicate is fine
    v.merges = {"a a"};
    const Metadata good = v.by_score();
    REQUIRE(status_of(good) == QUANT_OK);
    CHECK(status_of(good, 10) == QUANT_ERR_CORRUPT);
    CHECK(status_of(good, 261) == QUANT_OK);
    CHECK(status_of(v.by_rank()) == QUANT_ERR_CORRUPT);  // "aa" is no token

    const auto with = [&](const char* name, const MetadataValue& value) {
        Metadata m = good;
        m.set(std::string("tokenizer.ggml.") + name, value);
        return status_of(m);
    };
    CHECK(with("model", std::string("wordpiece")) == QUANT_ERR_UNSUPPORTED);
    CHECK(with("tokens", std::vector<std::string>{}) == QUANT_ERR_CORRUPT);
    CHECK(with("tokens", uint64_t{3}) == QUANT_ERR_CORRUPT);
    CHECK(with("scores", std::vector<double>{1, 2}) == QUANT_ERR_CORRUPT);
    CHECK(with("scores", std::vector<double>(261, std::numeric_limits<double>::quiet_NaN())) == QUANT_ERR_CORRUPT);
    CHECK(with("scores", std::string("none")) == QUANT_ERR_CORRUPT);
    CHECK(with("token_type", std::vector<int64_t>{1, 2}) == QUANT_ERR_CORRUPT);
    CHECK(with("token_type", std::vector<int64_t>(261, 9)) == QUANT_ERR_CORRUPT);
    CHECK(with("bos_token_id", uint64_t{261}) == QUANT_ERR_CORRUPT);
    CHECK(with("eos_token_id", uint64_t{1} << 40) == QUANT_ERR_CORRUPT);
    CHECK(with("unknown_token_id", int64_t{-5}) == QUANT_ERR_CORRUPT);
    CHECK(with("eos_token_ids", std::vector<int64_t>{2, -1}) == QUANT_ERR_CORRUPT);
    for (const char* merge : {"", "a", "a ", " a", "ab b", "a  a"})
        CHECK(with("merges", std::vector<std::string>{merge}) == QUANT_ERR_CORRUPT);

    Metadata bare = v.metadata("llama");
    CHECK(status_of(bare) == QUANT_ERR_CORRUPT);  // neither scores nor merges
    ByteLevel bytes;
    CHECK(status_of(bytes.byte_level("qwen2")) == QUANT_OK);
    CHECK(status_of(bytes.byte_level("of-its-own")) == QUANT_ERR_UNSUPPORTED);
    CHECK(status_of(bytes.metadata("gpt2")) == QUANT_ERR_CORRUPT);
}

TEST_CASE("without token types, the named special tokens are special", "[tokenizer]") {
    Vocabulary v = Vocabulary::sentence_piece();
    const int32_t space = v.add("\xE2\x96\x81");
    Metadata m = v.by_score();
    m.erase("tokenizer.ggml.token_type");
    m.set("tokenizer.ggml.unknown_token_id", uint64_t{0});
    const auto t = create(m);
    CHECK(t->is_special(0));
    CHECK(t->is_special(1));
    CHECK(t->encode("\n</s>", false, true) == Ids{space, 3 + '\n', 2});
}

TEST_CASE("long texts take time in proportion", "[tokenizer][slow]") {
    Vocabulary v = Vocabulary::sentence_piece();
    ByteLevel bytes;
    for (const std::string& letter : {std::string("\xE2\x96\x81"), std::string("a")})
        for (std::string piece = letter; piece.size() <= 48; piece += piece)
            v.add(piece, normal, static_cast<double>(piece.size()));
    for (const std::string& letter : {std::string(" "), std::string("a"), std::string("\n")})
        for (std::string piece = letter; piece.size() <= 8; piece += piece) bytes.merge(piece, piece);
    for (int i = 0; i < 300; ++i) {
        v.add("<|tag " + std::to_string(i) + "|>", control);
        bytes.add("<|tag " + std::to_string(i) + "|>", control);
    }
    for (const auto& t :
         {create(v.by_score()), create(bytes.byte_level("llama-bpe")), create(bytes.byte_level("gpt-2"))})
        for (const char* unit : {"a", " ", "\n", "<", "<|tag ", "\xFF"}) {
            std::string text;
            while (text.size() < 1 << 18) text += unit;
            INFO(unit);
            // A second at most even unoptimised and sanitized; 2^36 steps would be minutes.
            CHECK(seconds([&] { CHECK(t->decode(t->encode(text, false, true), true) == text); }) < 20);
        }
}

TEST_CASE("UTF-8 is shown only in whole characters", "[tokenizer]") {
    const std::string text = "a\xC3\xA9\xE6\x9D\xB1\xF0\x9F\x99\x82z";
    Utf8Stream one;
    std::vector<std::string> shown;
    for (char c : text) shown.push_back(one.push(std::string(1, c)));
    CHECK(shown ==
          std::vector<std::string>{"a", "", "\xC3\xA9", "", "", "\xE6\x9D\xB1", "", "", "", "\xF0\x9F\x99\x82", "z"});
    CHECK(one.flush().empty());

    const std::string bad = "\xEF\xBF\xBD";
    const auto all = [](const std::string& bytes) {
        Utf8Stream stream;
        std::string result = stream.push(bytes);
        return result + stream.flush();
    };
    CHECK(all(text) == text);
    CHECK(all("\xFF") == bad);
    CHECK(all("\xE6\x9D") == bad);  // unfinished at the end
    CHECK(all("\xE6\x9D"
              "A") == bad + "A");                   // unfinished in the middle
    CHECK(all("\xC0\x80") == bad + bad);            // overlong
    CHECK(all("\xED\xA0\x80") == bad + bad + bad);  // a surrogate
    CHECK(all("\xF0\x80\x80"
              "A") == bad + bad + bad + "A");
    CHECK(all("\xF4\x90\x80\x80") == bad + bad + bad + bad);  // past U+10FFFF
    CHECK(all("\xF0\x9F\x99\xE6\x9D\xB1") == bad + "\xE6\x9D\xB1");
    Utf8Stream kept;
    CHECK(kept.push("x\xF0\x9F") == "x");
    CHECK(kept.flush() == bad);
    CHECK(kept.push("y") == "y");
}
