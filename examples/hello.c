/* The whole way from a model file to text on the screen: hello MODEL [PROMPT] */
#include <stdio.h>
#include <string.h>

#include "quant.h"

static int show(void* user, int32_t token, const char* text, size_t len) {
    (void)user, (void)token;
    fwrite(text, 1, len, stdout);
    return fflush(stdout) != 0; /* nonzero would stop the generation */
}

int main(int argc, char** argv) {
    const char* prompt = argc > 2 ? argv[2] : "Once upon a time";
    quant_error error = {QUANT_OK, ""};
    quant_model* model = NULL;
    quant_session* session = NULL;
    quant_generate_options options = {0};
    int32_t tokens[256];
    size_t count = 0;
    quant_status status;
    options.struct_size = sizeof options;
    options.max_tokens = 100;

    if (argc < 2) {
        fprintf(stderr, "usage: hello MODEL [PROMPT]\n");
        return 2;
    }
    status = quant_model_open(&model, NULL, argv[1], NULL, &error);
    if (!status) status = quant_tokenize(model, prompt, strlen(prompt), QUANT_ADD_SPECIAL, tokens, 256, &count, &error);
    if (count > 256) count = 256; /* of a longer prompt, the beginning */
    if (!status) status = quant_session_create(&session, model, NULL, &error);
    if (!status) status = quant_generate(session, tokens, count, &options, show, NULL, NULL, &error);
    if (status) fprintf(stderr, "hello: %s: %s\n", quant_status_name(status), error.message);
    quant_session_destroy(session);
    quant_model_destroy(model);
    return status != QUANT_OK;
}
