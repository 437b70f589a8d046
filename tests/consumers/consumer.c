/* A C program outside the repository: MODEL in, text out. */
#include <quant.h>
#include <stdio.h>

static int show(void* user, int32_t token, const char* text, size_t len) {
    (void)user, (void)token;
    return fwrite(text, 1, len, stdout) != len;
}

int main(int argc, char** argv) {
    quant_error error = {QUANT_OK, ""};
    quant_model* model = NULL;
    quant_session* session = NULL;
    quant_generate_options options = {0};
    int32_t tokens[16];
    size_t count = 0;
    quant_status status = quant_model_open(&model, NULL, argc > 1 ? argv[1] : "", NULL, &error);
    options.struct_size = sizeof options;
    options.max_tokens = 8;
    if (!status) status = quant_tokenize(model, "Once", 4, QUANT_ADD_SPECIAL, tokens, 16, &count, &error);
    if (!status) status = quant_session_create(&session, model, NULL, &error);
    if (!status) status = quant_generate(session, tokens, count, &options, show, NULL, NULL, &error);
    if (status) fprintf(stderr, "%s\n", error.message);
    quant_session_destroy(session);
    quant_model_destroy(model);
    return status || quant_version() != QUANT_VERSION;
}
