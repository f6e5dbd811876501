# Compiles SOURCE, which holds a mistake, and expects SENTENCE in the first ten lines of the errors.
execute_process(
  COMMAND ${COMPILER} -std=c++20 -fsyntax-only -I${INCLUDE} -isystem ${EIGEN} ${SOURCE}
  RESULT_VARIABLE result
  ERROR_VARIABLE errors)
if(result EQUAL 0)
  message(FATAL_ERROR "${SOURCE} compiles")
endif()
string(REGEX MATCH "^([^\n]*\n?[^\n]*\n?[^\n]*\n?[^\n]*\n?[^\n]*\n?)([^\n]*\n?[^\n]*\n?[^\n]*\n?[^\n]*\n?[^\n]*)"
             first_lines "${errors}")
string(FIND "${first_lines}" "${SENTENCE}" place)
if(place EQUAL -1)
  message(FATAL_ERROR "the first ten lines do not say '${SENTENCE}':\n${first_lines}")
endif()
