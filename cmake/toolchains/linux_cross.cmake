# What the toolchain files for another Linux share: the compiler by its triple, and libraries, headers and packages from
# the target's side only, so that nothing of the building machine is linked.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_C_COMPILER ${QUANT_TRIPLE}-gcc)
set(CMAKE_CXX_COMPILER ${QUANT_TRIPLE}-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
