#pragma once

#include "group.h"

namespace fa2a {

void beginGraph(Group& group);
std::shared_ptr<GraphState> endGraph(Group& group);
/** After a failed operation of a capture: the streams leave capture mode, nothing is kept. */
void abandonCapture(Group& group);
std::shared_ptr<EventState> launchGraph(GraphState& graph);

}  // namespace fa2a
