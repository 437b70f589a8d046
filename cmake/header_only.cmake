# Packages of headers only, which serve every target. When cross-compiling, one that the target's side lacks is taken
# from the building machine: its own folder is linked into the build, so that no other header of this machine is seen.
include_guard()

# quant_find_headers(PACKAGE TARGET HEADER [VERSION]): find_package, else an imported TARGET with HEADER, a path like
# package/package.h. Sets PACKAGE_FOUND.
function(quant_find_headers package target header)
  find_package(${package} ${ARGN} QUIET)
  if(NOT ${package}_FOUND AND CMAKE_CROSSCOMPILING)
    find_path(QUANT_${package}_INCLUDE ${header} NO_CMAKE_FIND_ROOT_PATH PATHS /usr/include /usr/local/include
              /opt/homebrew/include NO_DEFAULT_PATH)
    mark_as_advanced(QUANT_${package}_INCLUDE)
    if(QUANT_${package}_INCLUDE)
      get_filename_component(folder ${header} DIRECTORY)
      set(headers ${PROJECT_BINARY_DIR}/headers)
      file(MAKE_DIRECTORY ${headers})
      file(CREATE_LINK ${QUANT_${package}_INCLUDE}/${folder} ${headers}/${folder} COPY_ON_ERROR SYMBOLIC)
      add_library(${target} INTERFACE IMPORTED GLOBAL)
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${headers})
      set(${package}_FOUND TRUE)
    endif()
  endif()
  set(${package}_FOUND ${${package}_FOUND} PARENT_SCOPE)
  set(${package}_VERSION ${${package}_VERSION} PARENT_SCOPE)
endfunction()
