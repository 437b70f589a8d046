// The same from C++.
#include <quant.h>

#include <iostream>
#include <memory>
#include <string>
#include <vector>

int main(int argc, char** argv) {
    quant_error error{};
    quant_model* opened = nullptr;
    if (quant_model_open(&opened, nullptr, argc > 1 ? argv[1] : "", nullptr, &error) != QUANT_OK) {
        std::cerr << error.message << "\n";
        return 1;
    }
    const std::unique_ptr<quant_model, void (*)(quant_model*)> model(opened, quant_model_destroy);
    quant_session* created = nullptr;
    if (quant_session_create(&created, model.get(), nullptr, &error) != QUANT_OK) return 1;
    const std::unique_ptr<quant_session, void (*)(quant_session*)> session(created, quant_session_destroy);

    const std::string prompt = "Once";
    std::vector<int32_t> tokens(16);
    size_t count = 0;
    if (quant_tokenize(model.get(), prompt.data(), prompt.size(), QUANT_ADD_SPECIAL, tokens.data(), tokens.size(),
                       &count, &error) != QUANT_OK) {
        return 1;
    }
    quant_generate_options options{};
    options.struct_size = sizeof options;
    options.max_tokens = 8;
    const auto show = [](void*, int32_t, const char* text, size_t size) {
        std::cout.write(text, static_cast<std::streamsize>(size));
        return 0;
    };
    return quant_generate(session.get(), tokens.data(), count, &options, show, nullptr, nullptr, &error) != QUANT_OK;
}
