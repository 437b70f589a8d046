// What the system knows of files by name (UTF-8), and files being written.
#pragma once
#include <cstdio>
#include <string>

namespace quant {

bool is_directory(const std::string& path);
bool file_exists(const std::string& path);

std::FILE* create_file(const std::string& path);  // for writing bytes; null: errno says why
bool replace_file(const std::string& from, const std::string& to);
void remove_file(const std::string& path);

std::string system_error_text();  // of errno

}  // namespace quant
